"""calibrate: this machine is measured (memory, disk, hash, each engine), and forecasts use it from then on"""

from __future__ import annotations

import argparse
import json
import sys
import time

from lab.app.calibrate import Calibration, calibrate, calibrated
from lab.app.lab import Lab
from lab.cli import _arguments


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab calibrate`."""
    parser.add_argument("--engine", action="append", default=[], choices=["llama.cpp", "mlx"], help="only this engine")
    parser.add_argument("--show", action="store_true", help="what was measured last, and whether it still holds")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Measures and prints; with --show only prints, and is 1 where nothing was measured or it no longer holds."""
    if args.show:
        found = calibrated(lab)
    else:
        found = calibrate(lab, args.engine, lambda what: print(f"measuring {what} …", file=sys.stderr, flush=True))
    print(json.dumps({**found.found, "stale": list(found.stale)}, indent=1) if args.json else render(found))
    return 1 if args.show and (found.stale or not found.found) else 0


def render(c: Calibration) -> str:
    """The measurements as text. Pure."""
    f = c.found
    if not f:
        return "Nothing was measured here yet: run `lab calibrate` on an idle machine."
    lines = [f"measured {time.strftime('%Y-%m-%d %H:%M', time.localtime(f.get('at', 0)))}"]
    lines.append(f"  memory  {f['bandwidth']:.1f} GB/s")
    lines.append(f"  hash    {f['hash_rate'] / 1e6:.0f} MB/s   disk {f['disk_rate'] / 1e6:.0f} MB/s")
    network, quantize = f.get("network"), f.get("quantize")
    lines.append(
        f"  network {network / 1e6:.0f} MB/s" if network else "  network not measured: no locked file in reach"
    )
    if quantize:
        lines.append(f"  llama.cpp quantizes {quantize / 1e6:.0f} million weights a second to Q4_K")
    for name, e in f.get("engines", {}).items():
        lines.append(
            f"  {name} {e['version']}: reads weights at {e['eta']:.0%} of the memory's rate, "
            f"{e['alpha'] * 1e6:.0f} µs a layer, {e['flops'] / 1e9:.0f} GFLOP/s in prompts"
        )
        if last := e.get("last"):
            lines.append(
                f"    corrected {e['fed']}×, last by {last.get('by', '?')} of {last.get('address', '?')} at a depth "
                f"of {last.get('depth', '?')}: {last['measured']:.4g} tokens/s instead of {last['forecast']:.4g}"
            )
    lines += [f"  {name} could not be measured: {why}" for name, why in f.get("failed", {}).items()]
    lines += [f"  stale: {why}" for why in c.stale]
    if c.stale:
        lines.append("Run `lab calibrate` again.")
    return "\n".join(lines)
