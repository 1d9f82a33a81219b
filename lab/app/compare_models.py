"""Compare a model's quantizations: one row per level, against the original, on a given text."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lab.adapters import runners, score, texts
from lab.adapters import store as stores
from lab.adapters.files import put
from lab.app.calibrate import learn, observed
from lab.app.generate import folder, resolve
from lab.app.lab import Lab
from lab.apply.events import Event
from lab.core.address import Address
from lab.core.facts import digest
from lab.core.problem import problem

VERSION = 1
"""Enters the key under which a row is kept: raise it when a measure changes its meaning."""


@dataclass(frozen=True, slots=True)
class Row:
    """One level of a model, or the original itself (`level` is `original`)."""

    address: str
    level: str
    """`Q4_K_M`, `4 bit g64`, `original`."""
    format: str
    bytes: int
    """Of the weights' files."""
    bits_per_weight: float
    tokens_per_second: float
    perplexity: float
    kl: float
    """Mean Kullback-Leibler divergence of the next token from the original's, in nats; 0 for the original."""
    same_top: float
    """Share of positions at which the likeliest token is the original's."""
    memory: int
    """Peak bytes while generating."""
    engine: str
    version: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rows of one model, and what they were measured on."""

    model: str
    text: str
    tokens: int
    rows: tuple[Row, ...]
    missing: tuple[str, ...]
    """Declared levels that are not there yet."""

    def to_json(self) -> dict[str, Any]:
        """`{model, text, tokens, rows: [{…}], missing}`."""
        return asdict(self) | {"rows": [asdict(r) for r in self.rows], "missing": list(self.missing)}


def compare(lab: Lab, name: str, *, text: Path | None = None, tokens: int = 512, refresh: bool = False) -> Comparison:
    """Every level of a model that is there, beside its original. Rows whose files stand are not measured again.

    The result is saved as `state/compare/MODEL.json`, `.md` and `.csv`.
    """
    model = resolve(lab, name if name.startswith("model.") else f"model.{name}")
    if model.kind != "model":
        raise problem(f"{model} is no model", do="name the model its quantizations are of")
    if tokens < 16:
        raise problem("at least 16 tokens are compared", do="give a larger --tokens")
    original = folder(lab, model)
    source = texts.text_of(
        original, str(text.expanduser().absolute()) if text else "", texts.HELD_OUT, "the comparison"
    )
    levels = sorted(
        a for a, d in lab.declarations.items() if a.kind == "quantization" and getattr(d, "of", "") == model
    )
    there = {a: p for a in levels if (p := Path(_view(lab, a))).is_dir()}
    kept = lab.state / "compare"
    work = kept / "work"
    work.mkdir(parents=True, exist_ok=True)
    base = [VERSION, _files(original), stores.digest(source), tokens]
    keys = {
        a: digest([*base, _files(p), score.version(runners.engine(p))]) for a, p in {model: original, **there}.items()
    }
    rows: dict[Address, dict[str, Any]] = {}
    if not refresh:
        rows = {a: row for a, k in keys.items() if (row := _read(kept / "rows" / f"{k}.json"))}
    try:
        if len(rows) < len(keys):
            log, expected = work / "score.log", work / "original.npy"
            _watch(lab, model, 0, len(keys))
            made = score.reference(original, source, tokens, expected, log)
            ids = made.pop("ids")
            rows[model] = _keep(kept, keys[model], made)
            learn(lab, model, observed("compare", made))
            for n, (a, p) in enumerate(there.items()):
                if a not in rows:
                    _watch(lab, a, n + 1, len(keys))
                    # Two levels with the same bytes are measured once.
                    same = None if refresh else _read(kept / "rows" / f"{keys[a]}.json")
                    rows[a] = same or _keep(kept, keys[a], score.level(p, ids, expected, log))
                    if not same:
                        learn(lab, a, observed("compare", rows[a]))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    made_rows = [_row(lab, a, p, rows[a]) for a, p in {model: original, **there}.items()]
    made_rows = _told_apart(made_rows)
    first, rest = made_rows[0], sorted(made_rows[1:], key=lambda r: (r.format, -r.bits_per_weight, r.address))
    count = int(rows[model].get("tokens", tokens))
    label = source.name if text is None else str(source)
    found = Comparison(model.name, label, count, (first, *rest), tuple(a for a in levels if a not in there))
    for suffix, content in (
        ("json", json.dumps(found.to_json(), indent=1)),
        ("md", markdown(found)),
        ("csv", table(found)),
    ):
        put(kept / f"{model.name}.{suffix}", (content.rstrip("\n") + "\n").encode())
    return found


def markdown(c: Comparison) -> str:
    """The rows as a Markdown table. Pure."""
    from lab.core.units import size

    head = "| level | format | size | bits/weight | tokens/s | perplexity | KL | same top | memory |"
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    for r in c.rows:
        lines.append(
            f"| {r.level} | {r.format} | {size(r.bytes)} | {r.bits_per_weight:.2f} | {r.tokens_per_second:.0f} |"
            f" {r.perplexity:.2f} | {r.kl:.5f} | {r.same_top:.1%} | {size(r.memory)} |"
        )
    return "\n".join(lines)


def table(c: Comparison) -> str:
    """The rows as CSV. Pure."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(r) for r in c.rows)
    return out.getvalue()


def _told_apart(rows: list[Row]) -> list[Row]:
    """Rows that would read alike say which quantization each is. Pure."""
    seen = Counter((r.level, r.format) for r in rows)
    return [
        replace(r, level=f"{r.level} ({Address(r.address).name})") if seen[r.level, r.format] > 1 else r for r in rows
    ]


def _view(lab: Lab, address: Address) -> str:
    declaration: Any = lab.declarations[address]
    return str(declaration.view(lab.context(address)))


def _files(view: Path) -> Any:
    """What a view holds, by content."""
    found = stores.provenance(view) or {}
    return found.get("files") or sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in view.iterdir())


def _row(lab: Lab, address: Address, view: Path, m: Mapping[str, Any]) -> Row:
    known = (stores.provenance(view) or {}).get("facts") or {}
    weights = sum(p.stat().st_size for p in view.iterdir() if p.suffix in (".gguf", ".safetensors"))
    original = address.kind == "model"
    if original:
        found = (stores.provenance(view) or {}).get("model") or {}
        params, size = found.get("params"), found.get("tensor_bytes") or weights
        bits = size * 8 / params if params else 0.0
        level, format_ = "original", str(found.get("format") or "safetensors")
    else:
        bits, format_ = float(known.get("bits_per_weight", 0)), str(known.get("format", ""))
        level = str(known.get("type") or f"{known.get('bits')} bit g{known.get('group_size')}")
        level += "".join(f" {known[k]}" for k in ("recipe", "method") if known.get(k)) + (
            " imatrix" * bool(known.get("imatrix"))
        )
    return Row(
        str(address), level, format_, weights, round(bits, 4), m["tokens_per_second"], m["perplexity"], m["kl"],
        m["same_top"], m["peak"], m["engine"], m["version"],
    )  # fmt: skip


def _keep(folder_: Path, key: str, found: Mapping[str, Any]) -> dict[str, Any]:
    row = {k: v for k, v in found.items() if k != "ids"}
    put(folder_ / "rows" / f"{key}.json", json.dumps(row).encode())
    return row


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found


def _watch(lab: Lab, address: Address, n: int, total: int) -> None:
    """Says which row is being measured, where the lab's events go."""
    lab.tell(Event("progress", address, done=n, total=total, unit=" rows"))
