"""What setting up an experiment takes: the commands a person types by hand, beside Lab's, each typed into a real shell.

    python -m tests.benchmarks.bench_setup [--repeats 5] [--write]

Both have the same script, the same file from the same server, the same two packages of PyPI, and end with a result
that is recorded with all that made it: versions, the file's hash, the code's commit. Each repetition has a home of its
own, so that nothing is cached. Prints Markdown; `--write` puts it into docs/performance.md.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.server
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.measure import written
from tests.engines import make
from tests.labs import REPO

SCRIPT = '''\
"""How many tensors a model has, times a number."""
import struct, sys
import mistune, tabulate
with open(sys.argv[1], "rb") as f:
    count = struct.unpack("<4sIQ", f.read(16))[2] * int(sys.argv[2])
print(tabulate.tabulate([["tensors", count]]))
print("score:", count)
'''
PACKAGES = "mistune==3.1.4 tabulate==0.9.0"
RECORD = 'echo "$(date -I),$(git rev-parse HEAD),times=TIMES,$(tail -1 result.txt)" >> results.csv'
HAND = (
    [
        "mkdir exp",
        "cd exp",
        "cp ../count.py .",
        "python3 -m venv .venv",
        f".venv/bin/pip install -q {PACKAGES}",
        "curl -fsSO URL/tiny.gguf",
        'echo "SHA256  tiny.gguf" | sha256sum -c --quiet',
        ".venv/bin/pip freeze > requirements.txt",
        "git init -q",
        "printf '.venv\\n*.gguf\\n' > .gitignore",
        "sha256sum tiny.gguf > SHA256SUMS",
        "git add -A",
        "git commit -qm first",
        ".venv/bin/python count.py tiny.gguf 1 | tee result.txt",
        RECORD.replace("TIMES", "1"),
        "git add -A",
        "git commit -qm result",
    ],
    [
        "cd exp",
        ".venv/bin/python count.py tiny.gguf 2 | tee result.txt",
        RECORD.replace("TIMES", "2"),
        "git commit -qam second",
    ],
)
LINE = "command='python count.py {models.m}/tiny.gguf {times}' env=words models.m=tiny"
LAB = (
    [
        "lab init exp",
        "cd exp",
        "cp ../count.py .",
        "mkdir conf/env",
        f"printf 'python: host\\npip: [{PACKAGES.replace(' ', ', ')}]\\n' > conf/env/words.yaml",
        "lab models add --url URL/tiny.gguf --name tiny",
        f"lab new experiment count --from command {LINE} params.times=1",
        "lab apply --yes",
    ],
    [
        "cd exp",
        f"lab new experiment twice --from command {LINE} params.times=2",
        "lab apply --yes",
    ],
)
STEPS = ("the first experiment, from nothing", "the next one, with another parameter")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder as a web server of this machine."""
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def typed(commands: list[str], at: Path, url: str = "", sha256: str = "") -> tuple[float, str]:
    """Seconds that the commands take, in one shell, and what they print; an error where one fails."""
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "UV_CACHE", "PIP_CACHE", "GIT_"))}
    who = {f"GIT_{x}_{y}": "t@t" for x in ("AUTHOR", "COMMITTER") for y in ("NAME", "EMAIL")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**bare, **who, "HOME": str(at), "LAB_STORE": str(at / "store"), "PATH": path, "PYTHONPATH": str(REPO)}
    text = "\n".join(commands).replace("URL", url).replace("SHA256 ", f"{sha256} ")
    began = time.perf_counter()
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=at, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{text}\n{done.stdout}{done.stderr}")
    return time.perf_counter() - began, done.stdout


def scores(way: int, home: Path) -> list[float]:
    """The results that were recorded, in order: by hand in a file, with Lab in its runs."""
    if way == 0:
        return [float(line.rpartition(":")[2]) for line in (home / "exp/results.csv").read_text().splitlines()]
    runs = json.loads(typed(["lab -C exp runs --json"], home)[1])
    return [run["metrics"]["score"] for run in sorted(runs, key=lambda run: run["started"])]


def report(repeats: int) -> str:
    """The table."""
    seconds: dict[tuple[int, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="setup-") as folder:
        root = Path(folder)
        (root / "www").mkdir()
        model = make.gguf(make.model(root / "model"), root / "www/tiny.gguf", "F32")
        sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
        with served(root / "www") as url:
            for n in range(repeats):
                for way, steps in enumerate((HAND, LAB)):
                    home = root / f"{n}-{way}"
                    home.mkdir()
                    (home / "count.py").write_text(SCRIPT)
                    for step, commands in enumerate(steps):
                        seconds.setdefault((step, way), []).append(typed(commands, home, url, sha256)[0])
                by_hand, with_lab = (scores(way, root / f"{n}-{way}") for way in (0, 1))
                if by_hand != with_lab or len(by_hand) != len(STEPS):
                    raise SystemExit(f"by hand {by_hand} were recorded, with Lab {with_lab}")
    head = "| | by hand | with Lab | commands saved |\n|---|---|---|---|"
    rows = []
    for step, title in enumerate(STEPS):
        cells = [
            f"{len(steps[step])} commands · {statistics.median(seconds[step, way]):.1f} s"
            for way, steps in enumerate((HAND, LAB))
        ]
        rows.append(f"| {title} | {' | '.join(cells)} | {100 * (1 - len(LAB[step]) / len(HAND[step])):.0f} % |")
    return f"Medians of {repeats} repetitions:\n\n{head}\n" + "\n".join(rows)


def main() -> None:
    """Prints, and with `--write` keeps, the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = report(options.repeats)
    if options.write:
        written(REPO / "docs/performance.md", "setup", text)
    print(text)


if __name__ == "__main__":
    main()
