"""Coverage: which share of each room's statements ran in `.ci/gate --coverage`, or in `coverage run -m pytest …`.

python -m tests.benchmarks.bench_coverage --write "What was run, in words."
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import written
from tests.labs import REPO

PAGE = REPO / "docs/performance.md"
DATA = Path(os.environ.get("COVERAGE_FILE", REPO / "build/coverage/data"))


def table() -> str:
    """The rooms with their statements and the share that ran, and all of them together."""
    whole, ran = Counter[str](), Counter[str]()
    for file, found in _read()["files"].items():
        room = Path(file).relative_to("lab").parts[0].removesuffix(".py")
        for name in (room, "TOTAL"):
            whole[name] += found["summary"]["num_statements"]
            ran[name] += found["summary"]["covered_lines"]
    names = [*sorted(n for n in whole if n != "TOTAL" and whole[n]), "TOTAL"]
    rows = [f"| {n} | {whole[n]:,} | {100 * ran[n] / whole[n]:.1f} % |" for n in names]
    return "\n".join(["| room | statements | run by the tests |", "|---|---|---|", *rows])


def _read() -> dict[str, Any]:
    if list(DATA.parent.glob(f"{DATA.name}.*")):
        subprocess.run([sys.executable, "-m", "coverage", "combine", "-q"], cwd=REPO, check=True)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        told = [sys.executable, "-m", "coverage", "json", "-q", "-i", "-o", file.name]
        subprocess.run(told, cwd=REPO, check=True)
        return json.loads(Path(file.name).read_text())


def main() -> None:
    """Prints the table, or writes it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="TEXT", help="keep it in docs/performance.md: what was run, in words")
    options = parser.parse_args()
    text = table()
    if options.write:
        written(PAGE, "coverage", f"{options.write}\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
