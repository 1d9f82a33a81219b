"""Ray: trials as tasks of a Ray cluster, an existing one or this host alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lab.adapters.dask_trials import Dask, halt, work
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_sweeps import Search
from lab.runs import cards
from lab.runs.folder import RunFolder
from lab.runs.run import Handle
from lab.runs.sweep_local import Spec


class Ray(Dask):
    """An executor on a Ray cluster; each trial asks for its declared processors and memory."""

    def __init__(self, step: Search, stage: Stage, spec: Spec, secrets: Mapping[str, str]) -> None:
        self._started = False
        super().__init__(step, stage, spec, secrets)

    def _connect(self, options: Mapping[str, Any]) -> Any:
        if sys.platform == "darwin":
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
        try:
            import ray
        except ImportError:
            raise problem("the executor ray is not installed", do="pip install 'llm-lab[ray]'") from None
        address = options.get("address")
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        try:
            if not ray.is_initialized():
                if address:
                    del quiet["include_dashboard"]
                    ray.init(address=str(address), **quiet)
                else:
                    processors = max(self.step.parallel, os.cpu_count() or 1)
                    ray.init(num_cpus=processors, num_gpus=len(cards.pool()), **quiet)
                self._started = True
        except (ConnectionError, RuntimeError, ValueError, OSError) as e:
            raise problem(
                f"no Ray cluster at {address or 'this host'}", why=str(e)[:200], do="start it, or check its address"
            ) from None
        asked = {"CPU": float(self.step.spec.get("cores") or 1), "memory": float(self.step.memory or 0)}
        asked["GPU"] = float(self.step.spec.get("cards") or 0)
        _held(asked, [n["Resources"] for n in ray.nodes() if n["Alive"]])
        self._work = ray.remote(work).options(
            num_cpus=asked["CPU"], num_gpus=asked["GPU"], memory=asked["memory"] or None, max_retries=10
        )
        return ray

    def start(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """See `Executor`."""
        spec, inputs = self.spec(number, params)
        if again:
            (self.folder(number) / "result.json").unlink(missing_ok=True)
        self.futures[number] = self._work.remote(spec, dict(inputs), dict(self.secrets))

    def poll(self, number: int) -> dict[str, Any] | None:
        """See `Executor`."""
        future = self.futures.get(number)
        if future is None:
            return Handle(self.folder(number)).poll()
        ready, _ = self.client.wait([future], timeout=0)
        if not ready:
            return None
        try:
            result, files = self.client.get(future)
        except self.client.exceptions.RayError as e:
            return {"state": "lost", "reason": f"its worker is gone: {str(e).splitlines()[0][:200]}"}
        self._take(number, files)
        return dict(result)

    def stop(self, number: int) -> None:
        """See `Executor`."""
        if RunFolder(self.folder(number).path).read("process.json"):
            halt(str(self.folder(number).path))
        else:
            self.client.cancel(self.futures[number], recursive=False)

    def close(self) -> None:
        """Our connection ends; a cluster of our own with it."""
        if self._started:
            self.client.shutdown()


def _held(asked: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> None:
    """Raises a Problem where no node could ever hold a trial: Ray would wait for one without end. Pure."""
    if any(all(n.get(k, 0) >= v for k, v in asked.items() if v) for n in nodes):
        return
    most = {k: max((n.get(k, 0) for n in nodes), default=0) for k in asked}
    said = [f"{v:g} {k} where a node has at most {most[k]:g}" for k, v in asked.items() if v > most[k]]
    why = f"it asks for {', '.join(said)}" if said else "each has too little of something"
    raise problem("no node of the Ray cluster can hold a trial", why=why, do="lower `resources`, or add such a node")
