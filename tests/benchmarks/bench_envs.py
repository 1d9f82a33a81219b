"""Environments beside the tools they stand on: solve and install against rattler and uv called directly; the watch.

`python -m tests.benchmarks.bench_envs --write` makes the tables of docs/performance.md, all in one run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from lab.adapters import conda as rattler
from lab.adapters import envlock, envs, uv
from lab.adapters.channel import index, package
from lab.core.steps_envs import LockEnv
from tests.benchmarks.measure import Figures, measure, written
from tests.envs.stands import SHORT, Stage, module, python_package, step_for

FILES = 3000
PACKAGES = 30
LARGE = 36_000
"""Bytes of a file in the large env: a real env's mean (6 packages of conda and 15 of PyPI: 107 MB in 2,985 files)."""
REPO = Path(__file__).parents[2]
PAGE = REPO / "docs" / "performance.md"
DIRECT = """
import asyncio, os, sys
from pathlib import Path
import rattler as r
channel, cache, prefix, python, *specs = sys.argv[1:]
async def main():
    virtual = [r.GenericVirtualPackage(r.PackageName(n), r.Version(v), r.BuildString("0"))
               for n, v in (("__unix", "0"), ("__linux", "5.10"), ("__glibc", "2.28"))]
    for platform in ("osx-arm64", "linux-64"):
        found = await r.solve(sources=[channel], specs=[r.MatchSpec(s, strict=False) for s in specs],
                              gateway=r.Gateway(cache_dir=Path(cache, "repodata")), platforms=[platform, "noarch"],
                              virtual_packages=virtual + [r.GenericVirtualPackage(r.PackageName("__osx"),
                                                          r.Version("14.0"), r.BuildString("0"))])
    await r.install(found, prefix, cache_dir=Path(cache, "pkgs"), show_progress=False)
asyncio.run(main())
os._exit(0)
"""


def channel(folder: Path, size: int) -> Path:
    """A channel whose thirty packages hold three thousand files together, each of that many bytes at least."""
    python_package(folder)
    for n in range(PACKAGES):
        files = module(f"bench{n}", "1.0")
        more = FILES // PACKAGES - len(files)
        rest = random.Random(n)
        files |= (
            {f"site-packages/bench{n}/m{i}.py": f"x = {i}\n".encode() * 200 for i in range(more)}
            if size < 2000
            else {f"site-packages/bench{n}/m{i}.bin": rest.randbytes(size) for i in range(more)}
        )
        package(folder, f"bench{n}", "1.0", noarch="python", depends=["python"], files=files)
    index(folder)
    if size >= 2000:
        _modern(folder)
    return folder


def _modern(channel: Path) -> None:
    """The channel's archives are `.conda`, as real channels' are: bzip2 alone would take rattler most of the time."""
    import zstandard
    from conda_package_streaming.transmute import transmute

    for listing in channel.glob("*/repodata.json"):
        said = json.loads(listing.read_text())
        for name, record in said.pop("packages").items():
            transmute(str(listing.parent / name), str(listing.parent), compressor=lambda: zstandard.ZstdCompressor(1))
            (listing.parent / name).unlink()
            made = listing.parent / f"{name.removesuffix('.tar.bz2')}.conda"
            data = made.read_bytes()
            known = {
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "md5": hashlib.md5(data).hexdigest(),
            }
            said["packages.conda"][made.name] = {**record, **known}
        listing.write_text(json.dumps({**said, "packages": {}}))


def timed(deed: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    begun = time.perf_counter()
    deed()
    return time.perf_counter() - begun


def spent(deed: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call, the processes it waited for included."""
    before = sum(os.times()[:4])
    wall = timed(deed)
    return wall, sum(os.times()[:4]) - before


Pair = tuple[tuple[float, float], tuple[float, float]]


FIRST = """
import json, os, sys
from pathlib import Path
import lab.app.lab
from lab.adapters import conda, envlock, envs
from lab.core.steps_envs import LockEnv
from tests.benchmarks.bench_envs import timed
from tests.envs.stands import Stage, step_for
asked = json.loads(sys.argv[1])
def one(home):
    envlock.lock(LockEnv("one", asked), Stage(home))
    envs.install(step_for(home), Stage(home))
before = sum(os.times()[:4])
walls = [timed(lambda: one(Path(home))) for home in sys.argv[2:]]
conda.rest()
print(json.dumps([walls, sum(os.times()[:4]) - before]))
"""


def conda(root: Path, built: Path, run: int) -> tuple[Pair, Pair]:
    """Wall and CPU seconds of lock and install by Lab, and of solve and install by rattler; all from empty caches.

    For the first env of a process, and for one more in the same.
    """
    names = [f"bench{n}" for n in range(PACKAGES)]
    asked = {"channels": [str(built)], "conda": names, "python": SHORT, "platforms": ["osx-arm64", "linux-64"]}

    def ours(*homes: str) -> tuple[list[float], float]:
        command = [sys.executable, "-c", FIRST, json.dumps(asked), *(str(root / h) for h in homes)]
        said = subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(REPO)})
        walls, cpu = json.loads(said.stdout)
        return walls, cpu

    other = root / f"direct{run}"
    command = [sys.executable, "-c", DIRECT, built.as_uri(), str(other), str(other / "prefix"), SHORT,
               f"python {SHORT}.*", *names]  # fmt: skip
    order = ("theirs", "first", "both") if run % 2 else ("both", "first", "theirs")
    found: dict[str, Any] = {}
    for turn in order:
        if turn == "theirs":
            found[turn] = spent(lambda: subprocess.run(command, check=True))
        elif turn == "first":
            found[turn] = ours(f"lab{run}")
        else:
            found[turn] = ours(f"lab{run}a", f"lab{run}b")
    (first,), cpu = found["first"]
    more = found["both"][0][1], found["both"][1] - cpu
    return ((first, cpu), found["theirs"]), (more, found["theirs"])


def pip(root: Path, run: int) -> Pair:
    """Seconds of lock and install of packages from PyPI by Lab, and by uv alone (compile twice, venv, install)."""
    asked = {"pip": ["httpx", "rich", "jinja2"], "python": "host", "platforms": ["osx-arm64", "linux-64"]}
    home, other = root / f"lab{run}", root / f"uv{run}"
    other.mkdir()
    cache = root / "uv-cache"
    shutil.rmtree(cache, ignore_errors=True)
    stage = Stage(home)
    (other / "r.in").write_text("\n".join(asked["pip"]))
    common = ["pip", "compile", "-q", "r.in", "--only-binary", ":all:", "--format", "pylock.toml"]

    def direct() -> None:
        for target, name in (("aarch64-apple-darwin", "mac"), ("x86_64-manylinux_2_28", "linux")):
            uv.call(*common, "--python-platform", target, "-o", f"pylock.{name}.toml", cwd=other, cache=other / "cache")
        uv.call("venv", "-q", str(other / "venv"))
        python = str(other / "venv" / "bin" / "python")
        uv.call("pip", "install", "-q", "--no-deps", "--python", python, "-r", "pylock.linux.toml",
                cwd=other, cache=other / "cache")  # fmt: skip

    def ours() -> None:
        envlock.lock(LockEnv("one", asked), stage)
        envs.install(step_for(home), stage)
        rattler.rest()

    if run % 2:
        return spent(ours), spent(direct)
    theirs = spent(direct)
    return spent(ours), theirs


def ten(root: Path, built: Path) -> list[str]:
    """Rows of ten envs in one lab by its own commands, each a whole process: made, and nothing to do; beside none."""
    rows = []
    least: dict[int, Figures] = {}
    for n in (0, 10):
        home = root / f"ten{n}"
        (home / "conf/env").mkdir(parents=True)
        (home / "conf/lab.yaml").write_text(f"lab: {{name: bench, id: 00000000-bench, store: {home}/store}}\n")
        for i in range(n):
            names = ", ".join(f"bench{x}" for x in range(PACKAGES))
            asked = f"channels: [{built}]\nconda: [{names}]\npython: '{SHORT}'\nvariables: {{N: 'n{i}'}}\n"
            (home / f"conf/env/e{i}.yaml").write_text(asked)
        lab = [sys.executable, "-m", "lab"]
        env = {"PYTHONPATH": str(REPO)}
        apply = [*lab, "-q", "apply", "--yes"]
        for verb, command in (("lock", [*lab, "lock"]), ("apply, all new", apply)):
            found = measure(command, home, env)
            if found.code:
                raise SystemExit(f"{' '.join(command)} in {home} ended with {found.code}")
            if n:
                cores = found.cpu / found.wall
                rows.append(f"| ten envs: {verb} | {found.wall:.2f} s · {found.cpu:.2f} s | {cores:.1f} cores |")
        measure(apply, home, env)
        least[n] = min((measure(apply, home, env) for _ in range(5)), key=lambda f: f.wall)
    each = (least[10].wall - least[0].wall) / 10 * 1000
    cells = f"{least[10].wall:.2f} s · {least[10].cpu:.2f} s | {each:.0f} ms per env beyond an empty lab's"
    rows.append(f"| ten envs: apply, nothing to do | {cells} {least[0].wall:.2f} s |")
    return [
        "Ten envs of 3,000 small files in one lab, whole processes, wall · CPU:",
        "",
        "| | | |",
        "|---|---|---|",
        *rows,
    ]


def table(root: Path, runs: int) -> str:
    """The figures, as Markdown."""
    built, large = channel(root / "channel", 1000), channel(root / "large", LARGE)
    (root / "l").mkdir()
    conda(root, built, -1)  # what is measured is installed: its bytecode is there
    small = [conda(root, built, n) for n in range(runs)]
    big = [conda(root / "l", large, n) for n in range(runs)]
    both = {
        f"conda: {PACKAGES} packages, {FILES:,} small files": [first for first, _ in small],
        "one more env in the same process": [more for _, more in small],
        f"conda: the same, {FILES * LARGE // 10**6} MB": [first for first, _ in big],
        "one more env in the same process, as large": [more for _, more in big],
        "PyPI: httpx, rich, jinja2": [pip(root / "pip", n) for n in range(runs)],
    }
    load = f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    lines = [
        "Both sides solve for osx-arm64 and linux-64 and install one, from empty caches of their own; only Lab writes",
        f"a conda-lock file. Wall · CPU, medians of {runs} alternating runs at load {load}:",
        "",
        "| | Lab | the tools alone | ratio | difference |",
        "|---|---|---|---|---|",
    ]
    for what, found in both.items():
        wall, cpu = (median(x[i] for x, _ in found) for i in (0, 1))
        wall_, cpu_ = (median(y[i] for _, y in found) for i in (0, 1))
        cells = [f"{wall:.2f} s · {cpu:.2f} s", f"{wall_:.2f} s · {cpu_:.2f} s"]
        more = f"{(wall - wall_) * 1000:+.0f} ms · {(cpu - cpu_) * 1000:+.0f} ms"
        lines.append(f"| {what} | {' | '.join(cells)} | {wall / wall_:.2f} · {cpu / cpu_:.2f} | {more} |")
    lines += ["", *ten(root, built)]
    step = step_for(root / "lab0")
    lines += ["", f"Watching that env of {FILES:,} files, best of five:", "", "| | wall |", "|---|---|"]
    for what, depth in (
        ("plan (folders)", 0),
        ("drift (every file's stat)", 1),
        ("verify (every byte)", 2),
    ):
        best = min(timed(lambda d=depth: envs.observe(step.link, d)) for _ in range(5))  # type: ignore[misc]
        lines.append(f"| {what} | {best * 1000:.1f} ms |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table; with `--write`, puts it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pip").mkdir()
        text = table(Path(folder), args.runs)
    print(text)
    if args.write:
        written(PAGE, "envs", text)


if __name__ == "__main__":
    main()
