"""Ray: trials as tasks of a Ray cluster, an existing one or this host alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.adapters.dask_trials import Dask, halt, work
from lab.core.problem import problem
from lab.core.steps_sweeps import Search
from lab.runs.folder import RunFolder
from lab.runs.run import Handle
from lab.runs.sweep_local import Spec


class Ray(Dask):
    """An executor on a Ray cluster; each trial asks for its declared processors and memory."""

    def __init__(
        self, step: Search, runs: Path, spec: Spec, secrets: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        self._started = False
        super().__init__(step, runs, spec, secrets, say)

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
                    ray.init(num_cpus=max(self.step.parallel, os.cpu_count() or 1), **quiet)
                self._started = True
        except (ConnectionError, RuntimeError, ValueError, OSError) as e:
            raise problem(
                f"no Ray cluster at {address or 'this host'}", why=str(e)[:200], do="start it, or check its address"
            ) from None
        cores = float(self.step.spec.get("cores") or 1)
        asked: dict[str, Any] = {"num_cpus": cores, "max_retries": 10}
        if self.step.memory:
            asked["memory"] = self.step.memory
        self._work = ray.remote(work).options(**asked)
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
