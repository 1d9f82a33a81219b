"""Dask: trials on the workers of a Dask cluster: an existing scheduler, hosts by SSH, or this host's processors.

A worker runs a trial as this host would: under a supervisor, in the trial's folder. Where worker and coordinator share
no file system, the folder's small files come back with the result. A worker that is lost loses no trial: Dask runs it
again elsewhere, in the same folder where that is shared.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.adapters.dask_hosts import Hosts
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_sweeps import Search
from lab.runs.folder import RunFolder
from lab.runs.run import Handle, RunSpec, again, launch
from lab.runs.sweep_local import Spec

LIMIT = 32 << 20
"""Largest file, in bytes, that comes back from a worker without a shared file system."""


TEND = 10.0
"""Seconds between two looks whether all workers of our own are there."""


class Dask:
    """An executor on a Dask cluster."""

    def __init__(self, step: Search, stage: Stage, spec: Spec, secrets: Mapping[str, str]) -> None:
        self.step, self.stage, self.spec, self.secrets = step, stage, spec, secrets
        self.runs = stage.state / "runs"
        self.futures: dict[int, Any] = {}
        self.again: set[int] = set()
        self.cluster: Any = None
        self._tended = time.monotonic()
        self.client = self._connect(step.executor)

    def _connect(self, options: Mapping[str, Any]) -> Any:
        try:
            import distributed
        except ImportError:
            raise problem("the executor dask is not installed", do="pip install 'llm-lab[dask]'") from None
        address, hosts = options.get("address"), options.get("hosts")
        try:
            if address:
                client = distributed.Client(str(address), timeout=str(options.get("timeout", "20s")))
            elif hosts:
                python = str(options.get("python") or "")
                self.cluster = Hosts(self.stage.root, list(map(str, hosts)), self.step.parallel, python)
                client = distributed.Client(self.cluster.scheduler_address, timeout="20s")
            else:
                self.cluster = distributed.LocalCluster(
                    n_workers=self._workers(), threads_per_worker=1, dashboard_address=None, silence_logs=50
                )
                client = distributed.Client(self.cluster)
        except (OSError, TimeoutError, ValueError, RuntimeError) as e:
            where = address or ", ".join(map(str, hosts or ())) or "this host"
            raise problem(
                f"no Dask cluster at {where}", why=str(e)[:200], do="start it, or check its address"
            ) from None
        return self._offered(client)

    def _workers(self) -> int:
        """As many workers on this host as it holds trials, by what one declares."""
        from lab.adapters.dask_offers import asked, here

        offered = here()
        return max(1, min([self.step.parallel, *(int(offered[n] // v) for n, v in asked(self.step).items())]))

    def _offered(self, client: Any) -> Any:
        """The cluster, whose workers say what their hosts have; a Problem where none could hold a trial."""
        from lab.adapters.dask_offers import Offers, asked, held

        self.asked = asked(self.step)
        if self.asked:
            client.register_plugin(Offers())
            workers = client.scheduler_info(n_workers=-1)["workers"].values()
            held(self.asked, [w["resources"] for w in workers])
        return client

    def folder(self, number: int) -> RunFolder:
        """The trial's folder, here."""
        return RunFolder(self.runs / f"{self.step.study}-{number:05d}")

    def start(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """See `Executor`."""
        spec, inputs = self.spec(number, params)
        if again:
            (self.folder(number) / "result.json").unlink(missing_ok=True)
        self.futures[number] = self.client.submit(
            work,
            spec,
            dict(inputs),
            dict(self.secrets),
            pure=False,
            retries=10,
            resources=self.asked or None,
            key=f"{self.step.study}-{number}-{id(spec)}",
        )

    def poll(self, number: int) -> dict[str, Any] | None:
        """See `Executor`."""
        future = self.futures.get(number)
        if future is None:  # of an earlier coordinator
            handle = Handle(self.folder(number))
            return handle.poll()
        if not future.done():
            self._tend()
            return None
        if future.status != "finished":
            why = str(future.exception())[:200] if future.status == "error" else future.status
            return {"state": "lost", "reason": f"its worker is gone: {why}"}
        result, files = future.result()
        self._take(number, files)
        return dict(result)

    def _tend(self) -> None:
        """A cluster of our own on this host has its workers again, where Dask gave up starting them anew."""
        if self.cluster is None or self.step.executor.get("hosts") or time.monotonic() - self._tended < TEND:
            return
        self._tended = time.monotonic()
        if len(self.client.scheduler_info(n_workers=-1)["workers"]) < self._workers():
            self.cluster.scale(self._workers())

    def _take(self, number: int, files: bytes) -> None:
        """The trial's small files are here, where the worker's folder is not ours."""
        folder = self.folder(number)
        if folder.result or not files:
            return
        folder.path.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(files)) as tar:
            tar.extractall(folder.path, filter="data")

    def waits(self, number: int) -> str:
        """Nothing: whom it lets in is the engine's affair, and the queue that of the worker's host."""
        return ""

    def stop(self, number: int) -> None:
        """See `Executor`; the trial is stopped by whichever worker holds it."""
        self.client.run(halt, str(self.folder(number).path))

    def close(self) -> None:
        """A cluster of our own ends, with its workers; trials in hand go on under their supervisors."""
        self.client.close()
        if self.cluster is not None:
            self.cluster.close()


def work(spec: RunSpec, inputs: Mapping[str, Any], secrets: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
    """On a worker: the trial's result and its small files. A trial another worker had begun goes on."""
    folder = RunFolder(spec.folder)
    if folder.spec and not folder.held() and not folder.result:
        handle = again(folder, secrets)
    else:
        handle = launch(spec, inputs, secrets)
    result = handle.wait() or {}
    return result, packed(folder.path)


def halt(path: str) -> None:
    """On every worker: the trial is asked to end, if it runs here."""
    Handle(RunFolder(path)).stop()


def packed(path: Path) -> bytes:
    """A run's folder without its large files, as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.stat().st_size <= LIMIT and file.name not in ("lease", "ship.lock"):
                tar.add(file, file.relative_to(path).as_posix())
    return out.getvalue()
