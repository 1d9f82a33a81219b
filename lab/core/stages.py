"""Stages: one lab side by side with itself (dev, test, production), each with a state of its own. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

GROUP = "stage"
"""The group of the head that names it: `conf/stage/NAME.yaml`, chosen by `stage=NAME`."""


def state(root: str, stage: str) -> str:
    """The machine-local state of a stage; without one, the lab's own."""
    return f"{root}/state/{GROUP}/{stage}" if stage else f"{root}/state"


def common(state: Path) -> Path:
    """The state that all stages of a lab on one machine share: its queue, and what was measured."""
    shared = state.parent.name == GROUP and state.parent.parent.name == "state"
    return state.parent.parent if shared else state


def own(id: str, stage: str) -> str:
    """The identity under which a stage's ledger, its views in the store and its backups are known."""
    return f"{id}@{stage}" if stage else id


def declared(lab: Mapping[str, Any]) -> str:
    """The id as lab.yaml says it, whatever the stage in force."""
    id, stage = str(lab.get("id", "")), str(lab.get(GROUP) or "")
    return id.removesuffix(f"@{stage}") if stage else id


def within(id: str, stage: str) -> dict[str, str]:
    """What the head's `lab:` says besides what is declared, where a stage is in force."""
    return {"id": own(id, stage), GROUP: stage} if stage else {}


def short(lab: Mapping[str, Any]) -> str:
    """What names of timers and tags of snapshots begin with, so that stages and labs of one host do not meet."""
    id, stage = str(lab.get("id", "")), str(lab.get("stage") or "")
    return f"{id[:8]}-{stage}" if stage else id[:8]


def folder(lab: Mapping[str, Any]) -> str:
    """The folder that keeps a stage's names apart inside one that stages share: `@test`; empty without a stage."""
    stage = str(lab.get("stage") or "")
    return f"@{stage}" if stage else ""


def locks(root: str, stage: str) -> tuple[str, ...]:
    """Where locks lie, the folder that is written first: a stage's own, then those that all share."""
    shared = f"{root}/conf/lock" if root else "conf/lock"
    return (f"{shared}/{GROUP}/{stage}", shared) if stage else (shared,)
