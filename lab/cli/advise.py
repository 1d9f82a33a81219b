"""advise: the best quality of a model that fits this host, why, and the settings to run it with"""

from __future__ import annotations

import argparse
import json

from lab.app.advise import advise
from lab.app.lab import Lab
from lab.cli import _arguments
from lab.forecast.advice import Advice


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab advise`."""
    parser.add_argument("model", help="a declared model, a hub id, a path or a published name")
    parser.add_argument("--context", type=_arguments.tokens, default=0, metavar="TOKENS", help="8192 or 8k")
    parser.add_argument("--host", default="", metavar="NAME", help="conf/host/NAME.yaml instead of this lab's host")
    parser.add_argument("--engine", choices=["llama.cpp", "mlx"], default="", help="only this engine")
    parser.add_argument("--sequences", type=int, default=1, help="requests at once")
    parser.add_argument("--least", type=float, default=0.0, metavar="TOKENS/S", help="at least this fast")
    _arguments.as_json(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints what to declare; 1 where nothing fits."""
    found = advise(lab, args.model, args.context, args.host, args.engine, args.sequences, args.least)
    print(json.dumps(found.to_json(), indent=1) if args.json else render(args.model, found))
    return 0 if found.best else 1


def render(model: str, a: Advice) -> str:
    """The advice as text: the declaration first, then why. Pure."""
    lines = []
    if a.best:
        use = a.best.use
        lines.append(f"{model}: declare")
        if use.format == "mlx":
            lines.append(f"  format: mlx   bits: {use.bits}   context: {use.context}")
        else:
            lines.append(f"  format: gguf   type: {use.type}   context: {use.context}")
    else:
        lines.append(f"{model}: nothing to declare here")
    lines += [f"  why   {r}" for r in a.reasons]
    lines += [f"  with  {k}: {v}" for k, v in a.settings.items()]
    for n in a.others:
        rate = f", {n.decode.value:.0f} tokens/s" if n.decode else ""
        lines.append(f"  also  {n.use.label()}: {n.peak.value / 2**30:.1f} GiB{rate}" if n.peak else "")
    return "\n".join(lines)
