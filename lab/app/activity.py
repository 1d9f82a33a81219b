"""activity: what was done to the lab, newest last: the end of its audit log, of everyone or of one project."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lab.adapters import audit
from lab.app import guest
from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.problem import did_you_mean, problem


def activity(lab: Lab, project: str = "", last: int = 0) -> list[dict[str, Any]]:
    """The last entries of the audit log as they stand there, oldest first; of a project where named. 0 is all."""
    found = list(audit.entries(guest.path(lab)))
    if project:
        known = {str(p) for e in found for p in e.get("projects", ())} | set(projects(lab, lab.declarations))
        if project not in known:
            raise problem(
                f"no project is called {project}{did_you_mean(project, known)}",
                why="a project is an experiment's `project:`, else `lab.tracking.project`, else its own name",
                do=f"name one of {', '.join(sorted(known)[:8])}" if known else "declare an experiment first",
            )
        found = [e for e in found if project in e.get("projects", ())]
    return found[-last:]


def projects(lab: Lab, addresses: Iterable[Address]) -> list[str]:
    """The projects that experiments and sweeps among these belong to, as the tracker names them."""
    return sorted({_project(lab, a) for a in addresses if a.kind in ("experiment", "sweep")} - {""})


def _project(lab: Lab, address: Address) -> str:
    declared: Any = lab.declarations.get(address)
    if address.kind == "sweep":
        return _project(lab, Address(declared.experiment)) if declared else ""
    everyones = (lab.head["lab"].get("tracking") or {}).get("project")
    return str((declared.project if declared else "") or everyones or address.name)
