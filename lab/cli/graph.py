"""graph: draws which resources need which, as Mermaid, Graphviz or SVG."""

from __future__ import annotations

import argparse

from lab.app.graph import dot, graph, mermaid, svg
from lab.app.lab import Lab
from lab.cli import _arguments

_FORMS = {"mermaid": mermaid, "dot": dot, "svg": svg}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab graph`."""
    _arguments.overrides(parser)
    parser.add_argument("--format", choices=sorted(_FORMS), default="mermaid")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints the drawing."""
    print(_FORMS[args.format](graph(lab)))
    return 0
