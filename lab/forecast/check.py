"""Forecasts against truths: any table with the columns of the published ones, row by row, from its inputs alone."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lab.core.forecast import Estimate
from lab.core.host import GIB, Host
from lab.forecast import cache, catalogue, chips, memory, reading, weights
from lab.forecast.architecture import Architecture
from lab.forecast.use import Use, needs

Row = Mapping[str, str]
UNITS = {"B": 1.0, "MiB": 2.0**20, "GiB": 2.0**30, "MB(as printed)": 2.0**20, "GB(as written)": 2.0**30}
THOUSAND_MB = 1000 * 2.0**20
"""What engines print as MB are MiB: Rapid-MLX divides MLX's peak by 1024²; mlx-lm prints GB of 10⁹."""
HEADER = {262144: 25}
"""Bytes of a GGUF's header per word of the vocabulary: 25 for Gemma's, 39 to 65 for others."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One truth, what was forecast for it, and whether the stated interval held."""

    id: str
    quantity: str
    kind: str
    """Class of attention."""
    engine: str
    model: str
    truth: float
    forecast: Estimate | None
    why: str = ""
    """Why nothing was forecast."""
    rounding: float = 0.0
    """Half of the truth's last printed digit."""

    @property
    def error(self) -> float | None:
        """Relative: (forecast − truth)/truth; None where nothing was forecast."""
        if self.forecast is None or not self.truth:
            return None
        return (self.forecast.value - self.truth) / self.truth

    @property
    def held(self) -> bool | None:
        """Whether the interval holds the truth, to the truth's own rounding."""
        if self.forecast is None:
            return None
        slack = self.rounding + 0.5
        return self.forecast.low - slack <= self.truth <= self.forecast.high + slack

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        f = self.forecast
        return {
            "id": self.id, "quantity": self.quantity, "class": self.kind, "engine": self.engine, "model": self.model,
            "truth": self.truth, "forecast": f.value if f else None, "low": f.low if f else None,
            "high": f.high if f else None, "source": f.source if f else "", "error": self.error, "held": self.held,
            "unknown": self.why,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """The rows of one quantity, class and engine, together."""

    quantity: str
    kind: str
    engine: str
    count: int
    unknown: int
    mean: float | None
    worst: float | None
    held: float | None
    """Share of the intervals that held."""


def check(rows: Iterable[Row], architectures: Iterable[Row] = ()) -> list[Checked]:
    """Every truth in `rows` with its forecast. `architectures` adds models to those the catalogue knows. Pure."""
    known = Known(architectures)
    return [c for row in rows for c in _one({k: v or "" for k, v in row.items() if k}, known)]


class _Full(dict[str, str]):
    """A row whose missing columns are empty."""

    def __missing__(self, _: str) -> str:
        return ""


def _one(given: dict[str, str], known: Known) -> list[Checked]:
    """What a row asks; a row with something that cannot be read says so, and the others stand."""
    row = _Full(given)
    rates = "tg_tps" in row or "pp_tps" in row
    try:
        return _rate(row, known) if rates else _size(row, known)
    except (ValueError, ArithmeticError, LookupError) as e:
        what = "generation" if rates else _quantity(row["kind"])
        engine = row["framework"] if rates else row["engine"]
        return [Checked(row["id"], what, "?", engine, row["model"], 0.0, None, f"the row cannot be read: {e}")]


def table(checked: Iterable[Checked]) -> list[Line]:
    """Summed up by quantity, class and engine. Pure."""
    groups: dict[tuple[str, str, str], list[Checked]] = defaultdict(list)
    for c in checked:
        groups[(c.quantity, c.kind, c.engine)].append(c)
    return [line(*key, found) for key, found in sorted(groups.items())]


def line(quantity: str, kind: str, engine: str, found: list[Checked]) -> Line:
    """One line over `found`. Pure."""
    errors = [abs(c.error) for c in found if c.error is not None]
    held = [c.held for c in found if c.held is not None]
    return Line(
        quantity,
        kind,
        engine,
        len(found),
        len(found) - len(errors),
        math.fsum(errors) / len(errors) if errors else None,
        max(errors, default=None),
        sum(held) / len(held) if held else None,
    )


class Known:
    """Architectures by name: of the tables given, then of the catalogue, then of the row itself."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._given = {catalogue.key(r["model"]): reading.from_row(r) for r in rows if r.get("model")}

    def find(self, row: Row) -> Architecture:
        """What is known of the row's model."""
        name = re.sub(r".*\((\S+) arch\)", r"\1", row.get("model") or "")
        mine = reading.from_row(row) if "n_layer" in row else Architecture(name=name)
        given, published = self._given.get(catalogue.key(name)), catalogue.find(name)
        best = given.filled(published) if given and published else given or published
        if best is None:
            return mine
        if mine.layers and (mine.layers, mine.width) != (best.layers, best.width):
            return mine
        return best.filled(mine).with_(name=name)


def _size(row: Row, known: Known) -> list[Checked]:
    what, arch = row["kind"], known.find(row)
    truth = float(row["value"]) * UNITS.get(row.get("unit") or "B", 1.0)
    engine = row.get("engine") or ""
    found, why = _SIZES.get(what, _no_rule)(row, arch)
    last = UNITS.get(row.get("unit") or "B", 1.0) * _last_digit(row["value"]) / 2
    return [
        Checked(
            row["id"], _quantity(what), arch.attention or "?", engine, row.get("model", ""), truth, found, why, last
        )
    ]


_QUANTITIES = {
    "gguf": "weights", "mlx_": "weights", "engi": "weights", "comp": "compute buffer", "meta": "working set",
}  # fmt: skip


def _quantity(kind: str) -> str:
    return "cache" if kind.startswith("kv") else _QUANTITIES.get(kind[:4], kind)


def _last_digit(text: str) -> float:
    """What one unit of the last printed decimal is worth; 0 for whole numbers."""
    decimals = len(text.partition(".")[2])
    return 10.0**-decimals if decimals else 0.0


Found = tuple[Estimate | None, str]


def _gguf(row: Row, arch: Architecture) -> Found:
    quant = row["quant"]
    if quant.startswith("UD-") or weights.canonical(quant) is None:
        return None, f"{quant} is a recipe of its publisher, not a type"
    publisher = (row.get("hf_repo") or "").partition("/")[0] or "published"
    found = weights.gguf(arch, quant, publisher=publisher)
    if found is None:
        return None, _lacks(arch)
    if row["kind"] == "gguf_file_bytes":
        words = arch.vocab or 0
        found = found + Estimate(words * HEADER.get(words, 45), words * 15, words * 90, "rule")
    return found, ""


def _mlx(row: Row, arch: Architecture) -> Found:
    quant = row["quant"]
    found: Estimate | None = None
    if match := re.fullmatch(r"(\d+)bit-gs(\d+)", quant):
        found = weights.mlx(arch, int(match[1]), int(match[2]))
    elif quant == "bf16":
        found = weights.mlx_unquantized(arch)
    elif quant in ("mxfp4", "nvfp4", "mxfp8"):
        found = weights.mlx(arch, mode=quant)
    elif quant.startswith("MXFP4("):
        found = weights.mlx(arch, mode=weights.EXPERTS_MXFP4)
    else:
        return None, f"{quant!r} is no recipe that is known"
    if found and row["kind"] == "mlx_repo_bytes" and (arch.hybrid or arch.vision):
        # Publishers give some layers of these more bits than asked, each in their own way.
        found = Estimate(found.value, found.low * 0.985, found.high * 1.065, found.source)
    return (found, "") if found else (None, _lacks(arch))


def _engine_size(row: Row, arch: Architecture) -> Found:
    return _gguf(row, arch) if weights.canonical(row["quant"]) else (None, f"{row['quant']} is no GGUF type")


def _cache(row: Row, arch: Architecture) -> Found:
    engine = {"mlx-lm": "mlx", "llama.cpp": "llama.cpp", "ds4": "ds4"}.get(row["engine"])
    if engine is None:
        return None, f"how {row['engine']} allocates is not known"
    if row["kind"] == "kv_bytes_per_token_engine":
        one, two = (cache.kv(arch, n, engine=engine, kv_type=row["kv_type"] or "f16") for n in (65536, 131072))
        return (Estimate.exact((two.value - one.value) / 65536, "rule"), "") if one and two else (None, _no_cache(arch))
    if row["kind"].endswith("_log") and not arch.causal:
        arch = arch.with_(causal=True)  # engines of that day kept a cache for encoders too
    found = cache.kv(
        arch,
        int(float(row["n_ctx"])),
        engine=engine,
        kv_type=row["kv_type"] or "f16",
        ubatch=int(float(row["n_ubatch"] or 512)),
        flash_attention=row["flash_attn"] != "off",
    )
    return (found, "") if found else (None, _no_cache(arch))


def _buffer(row: Row, arch: Architecture) -> Found:
    found = memory.compute_buffer(
        arch,
        cache.pad(int(float(row["n_ctx"]))),
        ubatch=int(float(row["n_ubatch"] or 512)),
        flash_attention=row["flash_attn"] != "off",
    )
    return (found, "") if found else (None, "vocabulary or width is not known")


def _working_set(row: Row, _: Architecture) -> Found:
    note = row.get("note") or ""
    if limit := re.search(r"wired_limit_mb=(\d+)", note):
        return Estimate.exact(int(limit[1]) * 2.0**20, "declared"), ""
    size = re.search(r"RAM (\d+) GB", note)
    if not size:
        return None, "the memory is not stated"
    macos = re.search(r"macOS (\d+)", note)
    value, low, high = chips.working_set(int(size[1]) * GIB, macos=int(macos[1]) if macos else 0)
    return Estimate(value, low, high, "rule"), ""


def _no_rule(row: Row, _: Architecture) -> Found:
    return None, f"{row['kind']} of {row.get('engine') or 'an engine'} is not modelled"


_SIZES: dict[str, Callable[[Row, Architecture], Found]] = {
    "gguf_file_bytes": _gguf,
    "gguf_tensor_bytes": _gguf,
    "mlx_repo_bytes": _mlx,
    "mlx_lazy_weight_bytes": _mlx,
    "engine_model_size_gib": _engine_size,
    "kv_mib_engine": _cache,
    "kv_mib_log": _cache,
    "kv_gib_log": _cache,
    "kv_bytes_log": _cache,
    "kv_bytes_per_token_engine": _cache,
    "compute_buffer_mib_engine": _buffer,
    "compute_buffer_mib_log": _buffer,
    "metal_working_set": _working_set,
}


def _lacks(arch: Architecture) -> str:
    from lab.forecast.inventory import missing

    return f"not known of the model: {', '.join(missing(arch)) or 'its mix'}"


def _no_cache(arch: Architecture) -> str:
    return f"not known of the model: {', '.join(cache.missing(arch)) or 'its cache in this engine'}"


def _rate(row: Row, known: Known) -> list[Checked]:
    arch, engine, host = known.find(row), _engine(row), _host(row)
    found = _use(row, engine)
    out: list[Checked] = []

    def add(quantity: str, column: str, value: Estimate | None, why: str, unit: float = 1.0) -> None:
        if text := row.get(column):
            what = arch.attention or "?"
            out.append(Checked(row["id"], quantity, what, engine, row["model"], float(text) * unit, value, why))

    why = ""
    if (row.get("nodes") or "1") != "1":
        why = "several machines: not modelled"
    elif found is None:
        why = f"{row['quant']!r} is no recipe that is known"
    elif not arch.layers:
        why = "the model is not known"
    if why or found is None:
        add("generation", "tg_tps", None, why)
        add("prompt", "pp_tps", None, why)
        return out
    prompt, start, depth = _tests(row)
    span = max(start + prompt + 128, 2560)  # one figure is published for all tests of a run
    talk = needs(arch, found.with_(depth=depth, engine=engine, context=span), host)
    read = needs(arch, found.with_(depth=start, prompt=prompt, engine=engine), host)
    lacks = "; ".join(talk.notes) or "the machine's bandwidth or arithmetic is not known"
    add("generation", "tg_tps", talk.decode, "" if talk.decode else lacks)
    add("prompt", "pp_tps", read.prefill, "" if read.prefill else lacks)
    if "peak" in (metric := row.get("memory_metric") or ""):
        add("peak", "memory_gb", talk.peak, "" if talk.peak else lacks, THOUSAND_MB if "MB" in metric else 1e9)
    return out


def _engine(row: Row) -> str:
    name, when = row["framework"].lower(), f"{row['framework_version']} {row['date']}"
    if name == "ds4" or "ollama" in name:
        return "ds4" if name == "ds4" else "ollama"
    if "mlx" in name:
        return "mlx"
    return "llama.cpp-2024" if re.search(r"\b202[0-4]\b", when) else "llama.cpp"


def _host(row: Row) -> Host:
    chip = row["chip"].strip()
    cores = int(float(row["gpu_cores"])) if row.get("gpu_cores") else chips.GPU_CORES.get(chip)
    band = float(row["bandwidth_gbs_spec"]) if row.get("bandwidth_gbs_spec") else chips.bandwidth(chip, cores)
    ram = int(float(row["ram_gb"]) * GIB) if row.get("ram_gb") else None
    return Host(name=chip, platform="osx-arm64", chip=chip, gpu_cores=cores, memory=ram, bandwidth=band, gpu="metal")


def _use(row: Row, engine: str) -> Use | None:
    quant = row["quant"].lower().removeprefix("mlx-")
    mlx = engine == "mlx"
    if "ds4" in quant:
        kind = {"q2": "IQ2_XXS", "q2-q4": "IQ2_XXS", "q4": "Q4_K_M"}.get(quant.split(" ")[0])
        return Use(type=kind) if kind else None
    if (match := re.match(r"(\d)bit(?:-gs(\d+))?", quant)) and mlx:
        return Use(format="mlx", bits=int(match[1]), group_size=int(match[2] or 64))
    if quant in ("bf16", "f16") and mlx:
        return Use(format="mlx")
    if "mxfp4" in quant and "q4_k" not in quant:
        if not mlx:
            return Use(type="MXFP4_MOE")
        return Use(format="mlx", mode=weights.EXPERTS_MXFP4, bits=4 if "q4" in quant else 8)
    if match:
        kind = {"4": "Q4_K_M", "8": "Q8_0", "6": "Q6_K", "5": "Q5_K_M", "3": "Q3_K_M", "2": "Q2_K"}.get(match[1])
        return Use(type=kind) if kind else None
    for word in re.findall(r"[a-z0-9_]+", quant):
        if weights.canonical(word):
            return Use(type=weights.canonical(word) or "")
    return None


def _tests(row: Row) -> tuple[int, int, int]:
    """Tokens of the prompt, the context before it, and the mean context while generating."""
    start, test, talk = int(float(row.get("ctx_depth") or 0)), row.get("pp_test") or "", row.get("tg_test") or ""
    found = re.search(r"(\d+)([kK])?", test)
    prompt = int(found[1]) * (1000 if found[2] else 1) if found else 2048
    many = re.search(r"(?:tg|gen |~|n=|^)(\d+)", talk)
    half = (int(many[1]) if many and "@" not in talk else 128) // 2
    before = 0 if "prompt" in test else start
    return prompt, before, start + half
