"""destroy: removes what Lab made."""

from __future__ import annotations

from collections.abc import Sequence

from lab.app.apply import Applied, Approve, Started, apply
from lab.app.lab import Lab
from lab.core import graph
from lab.core.address import Address
from lab.core.record import Record
from lab.plan.select import matching


def destroy(
    lab: Lab,
    only: Sequence[str] = (),
    *,
    approve: Approve = lambda plan: True,
    started: Started = lambda walk: None,
) -> Applied | None:
    """The named resources (all of this profile, where none is named) and what needs them are gone, as far as possible.

    What another profile alone has is found by its address only, not by a glob. The declarations stay as they are: the
    next `lab apply` would make them again.
    """
    mine = [a for a, r in lab.records.items() if a in only or a in lab.declarations or not _another_s(lab, r)]
    known = [*mine, *(a for a in lab.declarations if a not in lab.records)]
    chosen: set[Address] = matching(only, known) if only else set(known)
    needs = {a: r.requires for a, r in lab.records.items()}
    chosen |= graph.downstream(needs, chosen)
    recorded = sorted(a for a in chosen if a in lab.records)
    return apply(
        lab,
        recorded,
        verb="destroy",
        without=sorted(chosen),
        allow_destroy=True,
        approve=approve,
        started=started,
    )


def _another_s(lab: Lab, record: Record) -> bool:
    profiles = record.profiles.split()
    return bool(profiles) and (lab.profile or "-") not in profiles
