"""generate: text from a model or quantization, as it comes, with tokens per second."""

from __future__ import annotations

import argparse
import json
import sys

from lab.app.generate import Generated, generate
from lab.app.lab import Lab
from lab.core.problem import problem
from lab.core.units import size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab generate`."""
    parser.add_argument("address", help="a model or quantization: model.tiny_lm, quantization.tiny_lm.Q4_K_M")
    parser.add_argument("prompt", help="the text to continue; - reads it from standard input")
    parser.add_argument("--max-tokens", type=int, default=128, metavar="N", help="at most this many (128)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token (0)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="only the likeliest that sum to P (1)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same text (0)")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of context (the model's, at most 4096)")
    parser.add_argument("--engine", default="", help="llama.cpp, mlx, transformers; by default what the files are for")
    parser.add_argument("--chat", action="store_true", help="wrap the prompt in the model's chat template")
    parser.add_argument("--json", action="store_true", help="print text and figures as JSON")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the text as it comes, then one line of figures on standard error."""
    if args.max_tokens < 1 or args.temperature < 0 or not 0 < args.top_p <= 1:
        raise problem("--max-tokens must be at least 1, --temperature at least 0, --top-p in (0, 1]")
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt

    def each(text: str) -> None:
        if not args.json:
            sys.stdout.write(text)
            sys.stdout.flush()

    found = generate(
        lab,
        args.address,
        prompt,
        tokens=args.max_tokens,
        temperature=args.temperature,
        seed=args.seed,
        top_p=args.top_p,
        context=args.context,
        engine=args.engine,
        chat=args.chat,
        each=each,
    )
    if args.json:
        print(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        sys.stdout.write("\n")
        print(figures(found), file=sys.stderr)
    return 0


def figures(g: Generated) -> str:
    """`24 tokens, 210.5 tokens/s, first after 0.02 s · mlx on cpu · 126.1 MB`. Pure."""
    instead = f" (no {g.fallback_from} here)" if g.fallback_from else ""
    return (
        f"{g.tokens} tokens, {g.tokens_per_second:.1f} tokens/s, first after {g.first:.2f} s"
        f" · {g.engine} on {g.device}{instead} · {size(g.memory)} peak"
    )
