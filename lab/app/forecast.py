"""forecast: what a model takes to run, over types and contexts; and forecasts against truths."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.host import Host
from lab.core.problem import did_you_mean, problem
from lab.forecast import Needs, Use, catalogue, check, fit, gguf_types, needs, reading
from lab.forecast.architecture import Architecture
from lab.forecast.check import Checked

TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
CONTEXTS = (4096, 8192, 32768, 131072)


@dataclass(frozen=True, slots=True)
class Table:
    """Forecasts of one model, a row per type, a column per context."""

    model: str
    arch: Architecture
    host: Host
    rows: tuple[tuple[Needs, ...], ...]
    contexts: tuple[int, ...]
    limit: float | None
    """Bytes the model may take on this host; None where not known."""
    limit_name: str = ""

    def to_json(self) -> dict[str, Any]:
        """As `lab forecast --json` prints it."""
        rows = [
            {**n.to_json(), "fits": None if n.peak is None or self.limit is None else n.peak.value <= self.limit}
            for row in self.rows
            for n in row
        ]
        return {
            "format": 1,
            "model": self.model,
            "host": self.host.name,
            "architecture": self.arch.facts(),
            "limit": {"bytes": self.limit, "name": self.limit_name},
            "rows": rows,
            "unknown": list(self.arch.unknown),
            "stale": [e.stale for e in self.host.engines.values() if e.stale],
        }


def forecast(
    lab: Lab,
    model: str,
    types: Sequence[str] = (),
    contexts: Sequence[int] = (),
    host: str = "",
    kv_type: str = "f16",
    sequences: int = 1,
) -> Table:
    """What `model` takes in every type and context asked for. `model`: an address, a hub id, a path or a known name."""
    arch, machine = architecture(lab, model), machine_of(lab, host)
    chosen = [use_of(t) for t in types] or _default_uses(arch)
    spans = tuple(contexts) or tuple(c for c in CONTEXTS if not arch.context or c <= arch.context) or CONTEXTS[:1]
    rows = tuple(
        tuple(needs(arch, u.with_(context=c, kv_type=kv_type, sequences=sequences), machine) for c in spans)
        for u in chosen
    )
    limit = fit.limit(machine)
    return Table(model, arch, machine, rows, spans, limit.bytes if limit else None, limit.name if limit else "")


def use_of(text: str) -> Use:
    """A type as people write it: `Q4_K_M`, `mlx-4bit`, `mlx-4bit-gs32`, `mxfp4`, `mixed_3_6`, `bf16`."""
    word = text.lower().removeprefix("mlx").strip("-:")
    if (name := gguf_types.canonical(text)) and not text.lower().startswith("mlx"):
        return Use(type=name)
    if word in ("mxfp4", "mxfp8", "nvfp4"):
        return Use(format="mlx", mode=word)
    if word in fit.RECIPES:
        return Use(format="mlx", recipe=word)
    bits, _, group = word.partition("-gs")
    number = bits.removesuffix("bit").removesuffix("-")
    if number.isdigit() and 2 <= int(number) <= 8 and (not group or group.isdigit()):
        return Use(format="mlx", bits=int(number), group_size=int(group) if group else None)
    if word in ("bf16", "16bit", "f16"):
        return Use(format="mlx")
    raise problem(
        f"`{text}` is no type{did_you_mean(text.upper(), gguf_types.ALLOWED)}",
        do=f"one of {', '.join(gguf_types.ALLOWED)}, or mlx-4bit, mlx-4bit-gs32, mxfp4, mixed_3_6",
    )


def _default_uses(arch: Architecture) -> list[Use]:
    if arch.tensors and any(t.type not in (*gguf_types.UNQUANTIZED, "F64") for t in arch.tensors):
        return [Use()]
    return [Use(type=t) for t in TYPES] + [Use(format="mlx", bits=b) for b in (8, 4)]


def architecture(lab: Lab, model: str) -> Architecture:
    """The architecture of a declared or locked model, a local file or folder, or a published name. Reads."""
    path = Path(model).expanduser()
    if path.exists():
        return local(path)
    declared = lab.declarations
    address = next((a for a in (model, f"model.{model}", f"quantization.{model}") if Address(a) in declared), "")
    while address.startswith("quantization."):
        address = str(getattr(declared[Address(address)], "of", ""))
    if address:
        found = locked(lab, address)
        name = str(getattr(declared[Address(address)], "hub", "") or address.partition(".")[2])
        published = catalogue.find(name)
        best = found.filled(published) if found and published else found or published
        if best:
            return best
    by_hub = next((a for a, d in declared.items() if a.kind == "model" and getattr(d, "hub", "") == model), None)
    if by_hub and (found := locked(lab, by_hub)):
        return found
    if found := catalogue.find(model):
        return found
    raise problem(
        f"nothing is known of {model}{did_you_mean(model, [*declared, *catalogue.names()])}",
        why="it is no file, no declared or locked model and no published name that Lab knows",
        do="name a GGUF, a folder with a config.json, or run `lab lock` for a declared model",
    )


def locked(lab: Lab, address: str) -> Architecture | None:
    """The architecture in a model's lock or in its recorded facts; None where neither tells it. Reads."""
    name = Address(address).name
    record = lab.records.get(Address(address))
    for facts in ((lab.context(address).lock or {}).get("model"), (record.facts if record else {}).get("model")):
        if isinstance(facts, Mapping) and ("shape" in facts or "config" in facts):
            return reading.from_facts(facts, name)
    return None


def local(path: Path) -> Architecture:
    """The architecture of a GGUF, of a folder with a config.json, or of an architecture file. Reads."""
    from lab.adapters import gguf_header

    if path.is_dir():
        ggufs = sorted(path.glob("*.gguf"))
        if (path / "config.json").is_file():
            return local(path / "config.json").with_(name=path.name)
        if ggufs:
            return local(ggufs[0])
        raise problem(f"{path} holds no model", do="name a folder with a config.json or a GGUF")
    if path.suffix.lower() == ".gguf":
        try:
            header = gguf_header.read(path)
        except gguf_header.Broken as e:
            raise problem(f"{path} is no sound GGUF", why=str(e), do="fetch it again") from e
        return reading.from_gguf(header.values, [(t.name, t.shape, t.type) for t in header.tensors])
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as e:
        raise problem(f"{path} cannot be read as JSON or YAML", why=str(e).splitlines()[0]) from e
    if not isinstance(found, Mapping):
        raise problem(f"{path} is no architecture file", why="it is not a mapping", do="name a config.json or a lock")
    if "model_type" in found or "text_config" in found or "architectures" in found:
        return reading.from_config(found, path.parent.name)
    return reading.from_facts(found.get("model", {"shape": found}), path.stem)


def machine_of(lab: Lab, name: str) -> Host:
    """The lab's host, or the one declared in `conf/host/NAME.yaml`. Reads."""
    if not name:
        return lab.host
    from lab.adapters import machine

    return machine.declared(lab.conf, name, lab.common)


def calibration(lab: Lab) -> dict[str, Any]:
    """What `lab calibrate` measured here; empty where it has not run. Reads."""
    try:
        found = json.loads((lab.common / "calibration.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def check_file(path: Path, architectures: Path | None = None) -> list[Checked]:
    """Every truth in a table with the forecast made for it from its inputs alone. Reads."""
    rows = _rows(path)
    if rows and "kind" not in rows[0] and "tg_tps" not in rows[0]:
        raise problem(
            f"{path} has neither the column `kind` nor `tg_tps`",
            do="give a table with the columns of docs/forecast.md",
        )
    try:
        return check.check(rows, _rows(architectures) if architectures else ())
    except (KeyError, ValueError) as e:
        raise problem(f"{path} has a row that cannot be read", why=f"{type(e).__name__}: {e}") from e


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise problem(f"{path} cannot be read as a table", why=str(e)) from e


def summary(checked: Iterable[Checked]) -> list[check.Line]:
    """Totals by quantity. Pure."""
    found = list(checked)
    names = dict.fromkeys(c.quantity for c in found)
    return [check.line(n, "all", "all", [c for c in found if c.quantity == n]) for n in names]
