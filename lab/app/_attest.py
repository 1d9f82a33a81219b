"""Attestation: each resource of a rebuilt lab beside what the lab before had recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.app.lab import Lab
from lab.app.plan import another_profile
from lab.app.status import verify
from lab.core.address import Address
from lab.core.facts import Facts, differences
from lab.plan.decide import told


@dataclass(frozen=True, slots=True)
class Attested:
    """One resource: whether it is bit for bit what it was, and if not, why."""

    address: Address
    verdict: str
    """`identical`, `differs`, `missing`, `unknown`, or `new` where nothing was recorded of it."""
    why: str = ""
    digest: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True)
class Attestation:
    """What `lab verify` found in a rebuilt lab, compared with the lab before."""

    resources: tuple[Attested, ...]
    notes: tuple[str, ...] = ()

    @property
    def identical(self) -> int:
        """How many are bit for bit what they were."""
        return sum(r.verdict == "identical" for r in self.resources)

    @property
    def equal(self) -> bool:
        """Whether nothing differs, lacks or could not be compared; what had no record is no difference."""
        return all(r.verdict in ("identical", "new") for r in self.resources)

    def to_json(self) -> dict[str, Any]:
        """Every resource with its verdict."""
        return {
            "identical": self.identical,
            "of": len(self.resources),
            "equal": self.equal,
            "resources": [
                {k: v for k in ("address", "verdict", "why", "digest", "content") if (v := getattr(r, k))}
                for r in self.resources
            ],
            "notes": list(self.notes),
        }


def attest(
    lab: Lab, before: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str], notes: list[str]
) -> Attestation:
    """Every byte is read again; then each declared resource is compared with `before`, told in this lab's places."""
    lab = Lab(lab.root, lab.overrides, lab.tell)
    checked = verify(lab)
    out = []
    for address in sorted({*lab.declarations, *(Address(a) for a in before)}):
        record, old = lab.records.get(address), before.get(address)
        if address not in lab.declarations:
            if record is None or not another_profile(lab, record):
                notes.append(f"{address} was recorded, and the repository declares it no more")
            continue
        verdict, why = "identical", ""
        if address in failed or record is None:
            verdict, why = "missing", failed.get(address, "it could not be made")
        elif address in checked.gone:
            verdict, why = "missing", "it is gone again"
        elif address in checked.unknown:
            verdict, why = "unknown", checked.unknown[address]
        elif address in checked.drift:
            verdict, why = "differs", "; ".join(told(d) for d in checked.drift[address][:3])
        elif old is None:
            verdict, why = "new", "the backup holds no record of it"
        elif old["digest"] != record.digest:
            verdict, why = "differs", "the repository declares it otherwise than it was made"
        elif why := unlike(old["facts"], record.facts):
            verdict = "differs"
        found = record.content if record else ""
        out.append(Attested(address, verdict, why, lab.declared.digests.get(address, ""), found))
    return Attestation(tuple(out), tuple(notes))


def unlike(old: Facts, new: Facts) -> str:
    """What makes two realizations of one resource differ; empty where they have the same content. Pure."""
    for key in ("content_digest", "files", "contents"):
        if old.get(key) and new.get(key):
            if old[key] == new[key]:
                return ""
            if isinstance(old[key], Mapping):
                return "; ".join(told(d) for d in differences(old[key], new[key])[:3])
            return f"its content is {str(new[key])[:12]}…, it was {str(old[key])[:12]}…"
    return "; ".join(told(d) for d in differences(old, new)[:3])
