"""Shapes that grow: chains, fans, long histories and galleries of models, beside peers asked the like in the same run.

    python -m tests.benchmarks.bench_scale [--sizes 100,1000,10000] [--only chain,fan,history,gallery] [--write]

Prints Markdown; `--write` puts it into docs/performance.md. A peer that is not installed is named and left out. The
last column says how CPU time grows from the last size but one to the last, as the exponent of a power: 1 is linear.
With `--counts` it counts instructions (`perf stat`) in place of seconds, which noise does not touch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from tests.benchmarks.bench_engine import ENV, LAB, REPO
from tests.benchmarks.measure import Figures, best, measure, written

Row = tuple[str, Figures | None]
COUNTED = False


def taken(command: Sequence[str], root: Path, *, ours: bool = False, runs: int = 1) -> Figures:
    """One command measured; with COUNTED its `cpu` is billions of instructions instead."""
    env = ENV if ours else None
    if not COUNTED:
        return best(command, root, env, runs)
    with tempfile.NamedTemporaryFile() as told:
        perf = ["perf", "stat", "-x,", "-e", "instructions:u", "-o", told.name, "--", *command]
        found = measure(perf, root, env)
        lines = [x for x in Path(told.name).read_text().splitlines() if "instructions" in x]
    if not lines or not lines[0][0].isdigit():
        sys.exit("this machine counts no instructions (`perf stat` says so): leave --counts out")
    return Figures(float(lines[0].partition(",")[0]) / 1e9, found.wall, found.memory, found.code)


def lab(root: Path, *words: str, runs: int = 1) -> Figures:
    """`lab …` measured; it must end well."""
    found = taken([*LAB, *words], root, ours=True, runs=runs)
    assert found.code == 0, (words, found)
    return found


def head(root: Path, *kinds: str) -> None:
    """A lab with folders for these kinds."""
    for kind in kinds:
        (root / f"conf/{kind}").mkdir(parents=True)
    (root / "conf/lab.yaml").write_text(f"lab: {{name: bench, id: 00000000-bench, store: {root}/store}}\n")


def plain(root: Path, n: int, needs: Callable[[int], list[str]] = lambda i: []) -> None:
    """N files, each needing what is said."""
    head(root, "file")
    for i in range(n):
        more = f"needs: {json.dumps(needs(i))}\n" if needs(i) else ""
        text = f"path: {root}/out/{i // 1000}/f{i}.txt\ncontent: hello{i}\n{more}"
        (root / f"conf/file/f{i:06}.yaml").write_text(text)


def chain(root: Path, n: int) -> Iterator[Row]:
    """Each file needs the one before it."""
    plain(root, n, lambda i: [f"file.f{i - 1:06}"] if i else [])
    yield from _made(root, "chain")
    rules = "f0:\n\ttouch f0\n" + "".join(f"f{i}: f{i - 1}\n\tcp f{i - 1} f{i}\n" for i in range(1, n))
    builds = "".join(f"build f{i}: copy f{i - 1}\n" for i in range(1, n))
    yield from _peers(root, n, "chain", rules, builds)


def fan(root: Path, n: int) -> Iterator[Row]:
    """All files need the first one."""
    plain(root, n, lambda i: ["file.f000000"] if i else [])
    yield from _made(root, "fan")
    targets = " ".join(f"f{i}" for i in range(1, n))
    rules = f"all: {targets}\n" + "".join(f"f{i}: f0\n\tcp f0 f{i}\n" for i in range(1, n))
    builds = "".join(f"build f{i}: copy f0\n" for i in range(1, n))
    yield from _peers(root, n, "fan", rules, builds)


def _made(root: Path, shape: str) -> Iterator[Row]:
    yield f"{shape}: lab plan, cold", lab(root, "plan")
    yield f"{shape}: lab apply, all new", lab(root, "-q", "apply", "--yes")
    lab(root, "plan")
    yield f"{shape}: lab plan, none changed", lab(root, "plan", runs=3)
    first = root / "conf/file/f000000.yaml"
    first.write_text(first.read_text().replace("hello0", "changed"))
    yield f"{shape}: lab apply, the first changed", lab(root, "-q", "apply", "--yes")
    yield f"{shape}: lab graph", lab(root, "graph")
    yield f"{shape}: lab destroy --all", lab(root, "-q", "destroy", "--all", "--yes")


def _peers(root: Path, n: int, shape: str, rules: str, builds: str) -> Iterator[Row]:
    peer = root / "peer"
    peer.mkdir()
    (peer / "Makefile").write_text(f"last: f{n - 1}\n{rules}" if shape == "chain" else rules)
    (peer / "build.ninja").write_text(f"rule copy\n  command = cp $in $out\n  generator = 1\n{builds}")
    for i in range(n):
        (peer / f"f{i}").write_text("hello")
        os.utime(peer / f"f{i}", ns=(10**18 + i * 10**6,) * 2)
    for name, command in (("make -q", ["make", "-q"]), ("ninja -n", ["ninja", "-n"])):
        yield f"{shape}: {name}", taken(command, peer, runs=3) if shutil.which(command[0]) else None


def history(root: Path, n: int) -> Iterator[Row]:
    """N generations of thirty files, one changed in each, written as an apply writes them."""
    from lab.core.address import Address
    from lab.ledger import generations
    from lab.ledger.ledger import Ledger
    from lab.ledger.sqlite import File

    plain(root, 30)
    lab(root, "-q", "apply", "--yes")
    with closing(Ledger.write(File(root / "state/ledger.sqlite"), "00000000-bench")) as ledger:
        ledger.sql("PRAGMA synchronous=OFF")  # it is made here, not measured
        declared = {a: r.declaration for a, r in ledger.records().items()}
        for i in range(n):
            address = Address(f"file.f{i % 30:06}")
            declared[address] = {**declared[address], "content": f"turn {i}"}
            number = generations.begin(ledger, generations.Origin(), "apply", declared)
            with ledger.transaction():
                ledger.log(number, [(address, "update", f"content: turn {i}", "a" * 64, "b" * 64)])
            generations.finish(ledger, number, {"update": 1, "none": 29}, "done")
        ledger.stamp()
    lab(root, "plan")
    yield "history: lab plan", lab(root, "plan", runs=3)
    first = root / "conf/file/f000000.yaml"
    first.write_text(first.read_text().replace("hello0", "changed"))
    yield "history: lab apply, one changed", lab(root, "-q", "apply", "--yes")
    yield "history: lab history", lab(root, "history", runs=3)
    yield "history: lab history, all of it as JSON", lab(root, "history", "-n", "-1", "--json")
    yield "history: lab rollback to the second", lab(root, "-q", "rollback", "2", "--yes")
    yield "history: lab state check", lab(root, "state", "check")
    yield "history: lab state backup", lab(root, "state", "backup", str(root / "copy"))
    yield from _git(root / "peer", n)


def _git(peer: Path, n: int) -> Iterator[Row]:
    """As many commits of thirty files, one changed in each."""
    if not shutil.which("git"):
        yield "history: git log", None
        return
    peer.mkdir()
    lines = []
    for i in range(n):
        text, name = f"turn {i}", f"f{i % 30:06}"
        who = f"committer b <b@b> {1_700_000_000 + i} +0000"
        lines.append(f"commit refs/heads/main\n{who}\ndata 1\nx\nM 644 inline {name}\ndata {len(text)}\n{text}\n")
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=peer, check=True)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=peer, input="".join(lines).encode(), check=True)
    subprocess.run(["git", "reset", "-q", "--hard"], cwd=peer, check=True)
    yield "history: git status", taken(["git", "status"], peer, runs=3)
    yield "history: git log -p", taken(["git", "log", "-p"], peer)
    yield "history: git fsck --full", taken(["git", "fsck", "--full"], peer)


def gallery(root: Path, n: int) -> Iterator[Row]:
    """N models with the files of a public gallery's, but small: config, tokenizer, card, weights with a real header."""
    from tests.models import make

    head(root, "model")
    for i in range(n):
        folder = root / f"hub/m{i:05}"
        make.safetensors(folder, {"max_position_embeddings": 512 + i})
        text = f"path: {folder}\nplace: copy\ndescription: model {i}\ntags: [t{i % 7}]\n"
        (root / f"conf/model/m{i:05}.yaml").write_text(text)
    yield "gallery: lab plan, cold", lab(root, "plan")
    yield "gallery: lab apply, all new", lab(root, "-q", "apply", "--yes")
    lab(root, "plan")
    yield "gallery: lab plan, none changed", lab(root, "plan", runs=3)
    yield "gallery: lab models", lab(root, "models", runs=3)
    yield "gallery: lab models --where", lab(root, "models", "--where", "params>1e3 and format==safetensors")
    yield "gallery: lab models check", lab(root, "models", "check")
    yield "gallery: lab verify", lab(root, "verify")
    for i in range(0, n, 2):
        (root / f"conf/model/m{i:05}.yaml").unlink()
    yield "gallery: lab apply, every other one gone", lab(root, "-q", "apply", "--yes", "--allow-destroy")
    yield "gallery: lab gc, every other one's bytes", lab(root, "gc", "--yes")
    yield from _cache(root, n)


def _cache(root: Path, n: int) -> Iterator[Row]:
    """The same models as Hugging Face's own cache holds them, listed by its own tool."""
    program = shutil.which("hf")
    if not program:
        yield "gallery: hf cache ls", None
        return
    for i in range(n):
        repo, commit = root / f"cache/models--bench--m{i:05}", f"{i:040x}"
        for name in ("blobs", "refs", f"snapshots/{commit}"):
            (repo / name).mkdir(parents=True)
        (repo / "refs/main").write_text(commit)
        for file in (root / f"hub/m{i:05}").iterdir():
            blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            shutil.copyfile(file, blob)
            (repo / f"snapshots/{commit}/{file.name}").symlink_to(os.path.relpath(blob, repo / f"snapshots/{commit}"))
    yield "gallery: hf cache ls", taken([program, "cache", "ls", "--cache-dir", str(root / "cache")], root, runs=3)


SHAPES: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "chain": chain,
    "fan": fan,
    "history": history,
    "gallery": gallery,
}
LARGEST = {"gallery": 1000}
"""What a shape is measured up to: a public gallery has about as many."""


def report(sizes: Sequence[int], only: Sequence[str]) -> str:
    """The figures as Markdown."""
    rows: dict[str, dict[int, Figures | None]] = {}
    for name in only:
        for n in (s for s in sizes if s <= LARGEST.get(name, s)):
            root = Path(tempfile.mkdtemp(prefix="lab-scale-"))
            for row, figures in SHAPES[name](root, n):
                print(f"{n:,}  {row}  {figures and figures.cell()}", file=sys.stderr, flush=True)
                rows.setdefault(row, {})[n] = figures
            shutil.rmtree(root)
    what = "Billions of instructions" if COUNTED else "CPU seconds (user and system)"
    lines = [
        f"Measured with Python {platform.python_version()} on {platform.system()} {platform.machine()}:",
        f"{what} and peak memory of the whole process; the last column is the power of n by which they grow.",
        "",
        "| | " + " | ".join(f"{n:,}" for n in sizes) + " | grows as |",
        "|---|" + "---|" * (len(sizes) + 1),
    ]
    for row, cells in rows.items():
        told = [_cell(cells.get(n)) for n in sizes]
        lines.append(f"| {row} | {' | '.join(told)} | {_grows(cells)} |")
    return "\n".join(lines)


def _cell(figures: Figures | None) -> str:
    if figures is None:
        return "–"
    cell = figures.cell()
    return cell.replace(" s ·", " G ·") if COUNTED else cell


def _grows(cells: dict[int, Figures | None]) -> str:
    known = [(n, f) for n, f in sorted(cells.items()) if f and f.cpu > 0]
    if len(known) < 2:
        return "–"
    (a, x), (b, y) = known[-2:]
    return f"n^{math.log(y.cpu / x.cpu) / math.log(b / a):.2f}"


def main() -> None:
    """Prints, and with `--write` keeps, the figures."""
    global COUNTED
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--only", default=",".join(SHAPES))
    parser.add_argument("--counts", action="store_true", help="instructions in place of seconds")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    COUNTED = options.counts
    text = report([int(s) for s in options.sizes.split(",")], options.only.split(","))
    print(text)
    if options.write:
        written(REPO / "docs/performance.md", "scale", text)


if __name__ == "__main__":
    main()
