"""Executors by name: where the trials of a sweep run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from lab.core.step import Stage
from lab.core.steps_sweeps import Search
from lab.runs.sweep_local import Local, Spec
from lab.runs.sweep_ports import Executor


def executor(step: Search, stage: Stage, spec: Spec, secrets: Mapping[str, str]) -> Executor:
    """The declared executor, ready; raises Problems where its engine is not installed or cannot be reached."""
    name = str(step.executor.get("name", "local"))
    if name == "local":
        return cast(Executor, Local(stage.state / "runs", step.study, spec, secrets))
    if name == "dask":
        from lab.adapters.dask_trials import Dask

        return cast(Executor, Dask(step, stage, spec, secrets))
    from lab.adapters.ray_trials import Ray

    return cast(Executor, Ray(step, stage, spec, secrets))
