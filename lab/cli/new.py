"""new: declares a resource from a recipe, asking for what the recipe leaves open.

lab new experiment tune --from lora model=tiny_lm dataset=corpus iterations=40 resources.memory=4GB
lab new experiment tune --from lora --answers tune.yaml     the same answers from a file
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from lab.app.lab import Lab
from lab.app.new import new
from lab.core.problem import problem


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab new`."""
    parser.add_argument("kind", help="experiment, sweep, env, model, quantization")
    parser.add_argument("name", help="what it is to be called")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="what is open, a parameter, or a field")
    parser.add_argument("--from", dest="recipe", required=True, metavar="RECIPE", help="see `lab recipes KIND`")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="a YAML file of answers")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Writes the file and says what is next."""
    answers: dict[str, Any] = {}
    if args.answers:
        try:
            answers = yaml.safe_load(args.answers.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as e:
            raise problem(f"the answers {args.answers} cannot be read", why=str(e)) from e
        if not isinstance(answers, dict):
            raise problem(f"the answers {args.answers} are no mapping", do="write `model: NAME`, `dataset: NAME`, …")
    for word in args.words:
        key, found, value = word.partition("=")
        if not found:
            raise problem(f"`{word}` is no answer", do="write KEY=VALUE")
        try:
            answers[key] = yaml.safe_load(value)
        except yaml.YAMLError as e:
            raise problem(f"the value of {key} is no YAML", do="quote it") from e
    file = new(lab, args.kind, args.name, args.recipe, answers, _ask if sys.stdin.isatty() else lambda word, fit: "")
    print(f"Written: {file.relative_to(lab.root)}. Run `lab plan` to see what follows.")
    return 0


def _ask(word: str, fitting: tuple[str, ...]) -> str:
    hint = f" ({', '.join(fitting[:8])})" if fitting else ""
    try:
        return input(f"{word}{hint}: ").strip()
    except EOFError:
        return ""
