"""queue, gpus: what runs and waits on this host, what the quotas leave, and the cards of every host."""

from __future__ import annotations

from lab.adapters import admission, pool
from lab.adapters.admission import Entry
from lab.adapters.pool import Cards
from lab.app.lab import Lab
from lab.app.status import jobs
from lab.core.quotas import Quota, Use


def queue(lab: Lab) -> list[Entry]:
    """Who runs, then who waits, by their turns. Reads."""
    return jobs(lab)


def used(lab: Lab) -> list[Use]:
    """What each account with a quota has taken of it. Reads."""
    quotas = (lab.head.get("lab") or {}).get("quotas") or {}
    return admission.use(lab.state, {n: Quota(**q) for n, q in quotas.items()})


def gpus(lab: Lab) -> list[Cards]:
    """The cards of this host, and of others that share its state folder, with the runs that hold them. Reads."""
    return pool.hosts(lab.state)
