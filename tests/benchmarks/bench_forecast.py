"""Calibrated tokens/s against what engines really generate here: six tiny shapes × types, after one calibration.

    python -m tests.benchmarks.bench_forecast [--engine llama.cpp] [--engine mlx] [--write]

Memory needs no figures of its own: `tests/forecast/test_llamacpp.py` and `test_mlx.py` hold what engines allocate
against the forecast at several contexts. Measure on an idle machine: each figure is the best of several.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.adapters import calibrate, calibrate_engines
from lab.core.host import Engine, Host
from lab.forecast import Architecture, speed
from tests.benchmarks.measure import written

PAGE = Path(__file__).parents[2] / "docs/performance.md"
BASE = {"family": "llama", "tied": False, "context": 1024}


def shape(layers: int, width: int, ffn: int, vocab: int, heads: int, heads_kv: int) -> Architecture:
    """A llama of random weights."""
    return Architecture(
        layers=layers, width=width, ffn=ffn, vocab=vocab, heads=heads, heads_kv=heads_kv, head_dim=64, **BASE
    )


SHAPES = {
    "6 × 512": shape(6, 512, 1536, 4096, 8, 8),
    "12 × 512, 2 key heads": shape(12, 512, 1536, 8192, 8, 2),
    "8 × 768": shape(8, 768, 2048, 16384, 12, 4),
    "4 × 1024": shape(4, 1024, 2816, 32768, 16, 8),
    "16 × 256": shape(16, 256, 1024, 2048, 4, 4),
    "3 × 1536": shape(3, 1536, 4096, 8192, 24, 8),
}
TYPES = {"llama.cpp": ("F16", "Q8_0", "Q4_K"), "mlx": ("F16", "8", "4") if sys.platform == "darwin" else ("F16",)}
"""On a CPU MLX's quantized products take seconds a token and tell nothing."""


@dataclass(frozen=True)
class Row:
    """One shape in one type."""

    engine: str
    shape: str
    type: str
    forecast: float
    measured: float

    @property
    def error(self) -> float:
        """Of the forecast, relative to the truth."""
        return self.forecast / self.measured - 1


def rows(engine: str, folder: Path, host: Host) -> Iterator[Row]:
    """Forecast and truth, in tokens per second."""
    found = Engine.model_validate(calibrate.engine(engine, folder, host.bandwidth or 1.0))
    run = calibrate_engines.ENGINES[engine][0](folder)
    for name, arch in SHAPES.items():
        for kind in TYPES[engine]:
            measured = speed.Measured(found.eta_by_type.get(kind, found.eta), found.alpha, found.flops)
            seconds = speed.decode_seconds(
                arch, calibrate_engines.read(arch, kind), host, engine=engine, depth=10, measured=measured
            )
            assert seconds
            yield Row(engine, name, kind, 1 / seconds, 1 / min(run(arch, kind, 0)[0] for _ in range(3)))


def report(found: list[Row], band: float) -> str:
    """A table, and the mean error of each engine."""
    lines = [
        f"Memory's rate {band:.1f} GB/s; load {os.getloadavg()[0] / (os.cpu_count() or 1):.1f} per core. Tokens/s:",
        "",
        "| engine | shape | type | forecast | measured | error |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.engine} | {r.shape} | {r.type} | {r.forecast:.0f} | {r.measured:.0f} | {r.error:+.0%} |" for r in found
    ]
    for engine in dict.fromkeys(r.engine for r in found):
        mean = statistics.fmean(abs(r.error) for r in found if r.engine == engine)
        lines += ["", f"{engine}: mean error {mean:.1%}"]
    return "\n".join(lines)


def main() -> None:
    """Prints, or writes the figures into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", action="append", choices=list(TYPES), default=[])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    host = Host(bandwidth=calibrate.bandwidth(), cores=os.cpu_count())
    with tempfile.TemporaryDirectory() as scratch:
        installed = calibrate.versions()
        wanted = [e for e in (args.engine or TYPES) if e in installed]
        found = [row for engine in wanted for row in rows(engine, Path(scratch), host)]
    text = report(found, host.bandwidth or 0.0)
    print(text)
    if args.write:
        written(PAGE, "forecast", text)


if __name__ == "__main__":
    main()
