"""Measured: several models side by side, by what was measured of them: evaluation runs, bench records, the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lab.app.bench import kept
from lab.app.generate import resolve
from lab.app.lab import Lab
from lab.app.models import Library
from lab.core.address import Address
from lab.core.problem import problem
from lab.runs.folder import RunFolder
from lab.runs.run import runs


@dataclass(frozen=True, slots=True)
class Measured:
    """One model or quantization as it stands; None is what was never measured of it."""

    address: str
    metric: str
    """Which metric of its evaluations `accuracy` is."""
    accuracy: float | None
    run: str
    """The evaluation it is from."""
    tokens_per_second: float | None
    """By its last bench, at the depth that was measured last."""
    depth: int | None
    bytes: int | None
    """Of its files in the store."""

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)


def measured(lab: Lab, names: Sequence[str], metric: str = "accuracy") -> list[Measured]:
    """The models in the order they were named; figures of earlier inputs do not count. Reads."""
    if len(names) < 2:
        raise problem("a comparison needs at least two models", do="name them: `lab models compare A B`")
    entries = {e.address: e for e in Library(lab).entries()}
    found = []
    for address in [resolve(lab, n if "." in n else f"model.{n}") for n in names]:
        last = next((r for r in evaluations(lab, address) if metric in r.result["metrics"]), None)
        speeds = [r for r in kept(lab, str(address)) if r.get("digest") == lab.declared.digests[address]]
        speed = speeds[-1] if speeds else {}
        found.append(Measured(
            str(address), metric, last.result["metrics"][metric] if last else None, last.id if last else "",
            speed.get("tokens_per_second"), speed.get("depth"), entries[str(address)].bytes,
        ))  # fmt: skip
    return found


def evaluations(lab: Lab, address: Address) -> Iterator[RunFolder]:
    """The finished runs that were given this model with the inputs it has now, newest first. Reads."""
    digest = lab.declared.digests[address]
    every = sorted(runs(lab.state), key=lambda r: float(r.result.get("ended") or 0), reverse=True)
    for run in every:
        given = (run.spec.get("models") or {}).values()
        if run.result.get("state") == "finished" and any(
            m.get("address") == address and m.get("digest") == digest for m in given
        ):
            yield run
