"""show: one resource: wanted, recorded and observed side by side, with the reason."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.app.lab import Lab
from lab.app.status import Shown, show
from lab.cli import _arguments
from lab.core.facts import ABSENT, canonical
from lab.core.units import moment
from lab.plan.decide import shown as short


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab show`."""
    parser.add_argument("address", help="a resource, or the number of a generation")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints everything known of one resource."""
    if args.address.isdecimal():
        from lab.cli import history

        return history.main(
            lab, argparse.Namespace(generation=int(args.address), n=1, json=args.json, quiet=args.quiet)
        )
    found = show(lab, args.address)
    print(_json(found, args.address) if args.json else render(found, args.address))
    return 0


def render(s: Shown, address: str) -> str:
    """The resource as text. Pure."""
    lines = [address + (f"  ({s.where})" if s.where else "  (no longer declared)")]
    if s.change is None:
        lines.append("  it belongs to another profile")
    elif str(s.change.action) == "none":
        lines.append(f"  as declared{': ' + s.change.reason if s.change.reason else ''}")
    else:
        lines.append(f"  to {s.change.word}: {s.change.reason}")
    if s.recorded_at:
        lines.append(f"  recorded {moment(s.recorded_at)}")
    lines.append(f"  digest {s.digest}")
    if s.facts:
        leaves = [row for field, *values in s.facts for row in _leaves(field, values)]
        rows = [("", "wanted", "recorded", "observed"), *((n, *map(short, vs)) for n, vs in leaves)]
        marks = ["", *("≠" if len({canonical(v) for v in vs if v is not ABSENT}) > 1 else "" for _, vs in leaves)]
        widths = [max(len(r[i]) for r in rows) for i in range(4)]
        lines.append("")
        for mark, row in zip(marks, rows, strict=True):
            lines.append(f"{mark:1} " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    for title, names in (("needs", s.needs), ("needed by", s.needed_by)):
        if names:
            lines.append(f"  {title}: {', '.join(names)}")
    lines += [f"  generation {h['generation']}: {h['action']}, {h['reason']}" for h in s.history]
    return "\n".join(lines)


def _leaves(name: str, values: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """A row for each value inside nested facts, by its dotted name. Pure."""
    inside = [v for v in values if v is not ABSENT]
    if not all(isinstance(v, Mapping) and v for v in inside):
        yield name, values
        return
    for key in sorted({k for v in inside for k in v}):
        yield from _leaves(f"{name}.{key}", [v.get(key, ABSENT) if v is not ABSENT else v for v in values])


def _json(s: Shown, address: str) -> str:
    facts = {
        n: {k: v for k, v in (("wanted", w), ("recorded", r), ("observed", o)) if v is not ABSENT}
        for n, w, r, o in s.facts
    }
    out = {
        "address": address,
        "where": s.where,
        "digest": s.digest,
        "facts": facts,
        "declaration": s.declaration,
        "needs": s.needs,
        "needed_by": s.needed_by,
        "history": s.history,
        "change": s.change.to_json() if s.change else None,
    }
    return json.dumps(out, indent=1, ensure_ascii=False)
