"""Fuzz: odd conf, overrides, locks, plans, ledgers, headers and answers; whatever comes, a problem in words or nothing.

`python -m tests.faults.fuzz TARGET [SECONDS] [SEED]` goes on by itself and prints each find with the seed that makes it.
"""

# ruff: noqa: E501

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from lab.core.problem import Problems
from tests.faults.odd import harm, mutate, odd
from tests.labs import REPO, TestLab

LIMIT = 120
"""Seconds that anything may take."""
ESCAPED = Path("/tmp/lab-escaped")
WORDS = ("validate", "plan", "plan --json", "status", "graph", "forecast", "drift", "config")


class TooSlow(BaseException):
    """Something took longer than LIMIT."""


@contextmanager
def bounded(seconds: int = LIMIT) -> Iterator[None]:
    """TooSlow is raised where the inside does not end."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TooSlow("".join(traceback.format_stack(frame)[-6:]))

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


Case = Callable[[random.Random, Path], None]


def ask(lab: TestLab, *words: str) -> int:
    """The exit code of a command, which is 0 or 1 and comes without a fault of ours."""
    ran = lab(*words)
    assert ran.code in (0, 1), ran
    said = ran.out + ran.err
    assert "Traceback" not in said, said
    assert "fault in Lab" not in said, said
    assert ran.code == 0 or said.strip(), words
    assert not ESCAPED.exists(), words
    return ran.code


def real() -> dict[str, list[tuple[str, Any]]]:
    """Kind → the declarations that this repository ships."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for top in (REPO / "conf", REPO / "recipes", *(REPO / "recipes/lab").glob("*/conf")):
        for path in sorted(top.glob("*/*.yaml")):
            if path.parent.name in ("profile", "lab") or path.parent.parent.name == "lock":
                continue
            found.setdefault(path.parent.name, []).append((path.stem, yaml.safe_load(path.read_text())))
    return found


REAL: dict[str, list[tuple[str, Any]]] = {}
HEAD = {"lab": {"name": "t", "id": "00000000-fuzz", "store": "STORE"}, "offline": True}


def write(root: Path, name: str, value: Any) -> None:
    """A YAML file of a lab."""
    path = root / "conf" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    except (yaml.YAMLError, RecursionError):
        text = repr(value)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def whole(dice: random.Random, root: Path, head: Any = None) -> TestLab:
    """A lab with some declarations of every kind."""
    REAL.update(REAL or real())
    shutil.rmtree(root, ignore_errors=True)
    value = json.loads(json.dumps(head or HEAD).replace("STORE", str(root / "store")))
    write(root, "lab", value)
    for kind, known in REAL.items():
        if kind != "host":
            for name, block in dice.sample(known, min(2, len(known))):
                write(root, f"{kind}/{name}", block)
    return TestLab(root)


def conf(dice: random.Random, root: Path) -> None:
    """A few declarations, or the head, with something odd in them."""
    lab = whole(dice, root)
    files = sorted((root / "conf").rglob("*.yaml"))
    for path in dice.sample(files, min(len(files), dice.randint(1, 3))):
        if dice.random() < 0.12:
            path.write_bytes(harm(dice, path.read_bytes()))
        else:
            name = path.relative_to(root / "conf").with_suffix("").as_posix()
            write(root, name, mutate(dice, yaml.safe_load(path.read_text())))
    if dice.random() < 0.2:
        write(root, dice.choice(["profile/p", "host/h", "lock/model/x", "lock/env/y"]), odd(dice))
    for words in dice.sample(WORDS, 3):
        ask(lab, *words.split())


def overrides(dice: random.Random, root: Path) -> None:
    """Any override on any verb."""
    lab = whole(dice, root)
    kinds = [p.name for p in (root / "conf").iterdir() if p.is_dir()]
    words = []
    for _ in range(dice.randint(1, 3)):
        kind = dice.choice(kinds)
        name = dice.choice([p.stem for p in (root / "conf" / kind).glob("*.yaml")])
        known = yaml.safe_load((root / "conf" / kind / f"{name}.yaml").read_text()) or {}
        key = ".".join([kind, name, dice.choice([*map(str, known), "nope", ""])][: dice.randint(1, 3)])
        value = (
            str(odd(dice))[:200]
            if dice.random() < 0.6
            else dice.choice(["{a: 1", "[1,2", "${x}", "range(1,", "'", '"x', "null", ""])
        )
        sign = dice.choice(["", "", "+", "++", "~"])
        words.append(sign + key + dice.choice(["=", "=", "", "@x=", "=="]) + value)
    ask(
        lab,
        dice.choice(["plan", "validate", "config", "forecast"]),
        *[w.replace("\0", "") for w in words if w and w[0] != "-"],
    )


def locks(dice: random.Random, root: Path) -> None:
    """The locks of models and environments, as committed, with something odd in them."""
    lab = whole(dice, root)
    shutil.copytree(REPO / "conf/lock", root / "conf/lock", dirs_exist_ok=True)
    for kind in ("model", "env"):
        shutil.copytree(REPO / "conf" / kind, root / "conf" / kind, dirs_exist_ok=True)
    files = sorted((root / "conf/lock").rglob("*.y*ml"))
    for path in dice.sample(files, dice.randint(1, 4)):
        if dice.random() < 0.2:
            path.write_bytes(harm(dice, path.read_bytes()))
        else:
            value = mutate(dice, yaml.safe_load(path.read_text()), 5)
            write(root, path.relative_to(root / "conf").with_suffix("").as_posix(), value)
    for words in ("plan", "validate", "status"):
        ask(lab, *words.split())


def _applied(root: Path) -> TestLab:
    shutil.rmtree(root, ignore_errors=True)
    files = {f"file/f{n}": f"path: ROOT/out/{n}\ncontent: 'text {n}'\n" for n in range(3)}
    lab = TestLab.make(root, files)
    assert lab("apply", "--yes").code == 0
    lab.write("conf/file/f1.yaml", "path: ROOT/out/1\ncontent: changed\n")
    return lab


def plans(dice: random.Random, root: Path) -> None:
    """A saved plan that was edited: refused, or what the whole one would have done."""
    lab = _applied(root)
    plan = root / "plan.json"
    assert lab("plan", "--out", str(plan)).code == 0
    value = json.loads(plan.read_text())
    for _ in range(6):
        plan.write_text(json.dumps(mutate(dice, value)))
        code = ask(lab, "apply", str(plan), "--yes")
        assert (root / "out/1").read_text() == ("text 1" if code else "changed")
        if not code:
            return


def ledgers(dice: random.Random, root: Path) -> None:
    """Rows altered with and without a right checksum, files harmed: told, or harmless; what was made stays as it is."""
    from lab.core.record import COLUMNS
    from lab.ledger.ledger import Ledger
    from lab.ledger.sqlite import File

    lab = _applied(root)
    file = root / "state/ledger.sqlite"
    if dice.random() < 0.3:
        file.write_bytes(harm(dice, file.read_bytes()))
    else:
        with closing(sqlite3.connect(file)) as db:
            table = dice.choice(
                ["resource", "resource", "resource", "generation", "declared", "history", "meta", "journal"]
            )
            names = [c[0] for c in db.execute(f"SELECT * FROM {table}").description]
            name = dice.choice(names)
            for (row,) in db.execute(f"SELECT {names[0]} FROM {table} LIMIT 2").fetchall():
                old = db.execute(f"SELECT {name} FROM {table} WHERE {names[0]} = ?", (row,)).fetchone()
                value: Any = odd(dice, old and old[0])
                with suppress(ValueError, TypeError):
                    value = (
                        json.dumps(mutate(dice, json.loads(old[0])))
                        if isinstance(old[0], str) and old[0][:1] in "{["
                        else value
                    )
                value = value if isinstance(value, (str, int, float, type(None))) else json.dumps(value)
                try:
                    db.execute(f"UPDATE {table} SET {name} = ? WHERE {names[0]} = ?", (value, row))
                    db.commit()
                except (sqlite3.Error, OverflowError, UnicodeEncodeError):
                    db.rollback()
        if dice.random() < 0.6:
            try:
                with closing(Ledger.read(File(file), "")) as ledger:
                    sums = [(r.sum(), a) for a, r in ledger.records().items()]
                with closing(sqlite3.connect(file)) as db:
                    db.executemany("UPDATE resource SET sum = ? WHERE address = ?", sums)
                    db.commit()
            except (Problems, ValueError, TypeError, sqlite3.Error, AttributeError, OverflowError):
                assert COLUMNS
    for words in (
        "plan", "plan --json", "status", "state list", "state check", "state show file.f1", "history", "history 1", "show file.f1", "drift",
        "verify", "state export", "sql 'select * from resources'", "gc --dry-run", "rollback 1 --dry-run",
    ):  # fmt: skip
        ask(lab, *words.split())
    assert (root / "out/1").read_text() == "text 1"


def headers(dice: random.Random, root: Path) -> None:
    """Model folders whose header, config or tokenizer is odd."""
    from lab.adapters import headers as module
    from tests.models import make

    shutil.rmtree(root, ignore_errors=True)
    if dice.random() < 0.4:
        root.mkdir(parents=True)
        make.gguf(root / "tiny.gguf")
        (root / "tiny.gguf").write_bytes(harm(dice, (root / "tiny.gguf").read_bytes()))
    else:
        make.safetensors(root, shards=dice.choice([1, 2]))
        for path in dice.sample(sorted(root.iterdir()), dice.randint(1, 3)):
            data = path.read_bytes()
            if path.suffix == ".json":
                path.write_text(json.dumps(mutate(dice, json.loads(data))))
            elif path.suffix == ".safetensors":
                (size,) = struct.unpack("<Q", data[:8])
                head = json.dumps(mutate(dice, json.loads(data[8 : 8 + size]))).encode()
                path.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + size :])
            else:
                path.write_bytes(harm(dice, data))
    with suppress(Problems):
        module.read(root)


def main(argv: list[str]) -> int:
    """Runs one target until its time is over; prints what it found."""
    from tests.faults import answers

    target, seconds, seed = argv[0], float((argv[1:] or ["60"])[0]), int((argv[2:] or ["1"])[0])
    known = {**globals(), **vars(answers)}
    finds, tried = run(known[target], seconds, seed)
    for text, found in finds.items():
        print(f"--- seeds {found[:5]}: {text}", flush=True)
    print(f"{target}: {tried} cases, {len(finds)} finds")
    return bool(finds)


def run(case: Case, seconds: float, seed: int, most: int = 1_000_000) -> tuple[dict[str, list[int]], int]:
    """What each distinct find was → the seeds that make it; and how many cases were tried."""
    threads: list[BaseException] = []
    threading.excepthook = lambda args: threads.append(args.exc_value or SystemError())
    finds: dict[str, list[int]] = {}
    until, tried = time.monotonic() + seconds, 0
    top = Path(tempfile.mkdtemp(prefix="lab-fuzz-"))
    ESCAPED.unlink(missing_ok=True)
    try:
        while time.monotonic() < until and tried < most:
            number, tried = seed + tried, tried + 1
            try:
                with bounded():
                    case(random.Random(number), top / "lab")
                if threads:
                    raise threads.pop()
            except (Exception, TooSlow) as e:
                trace = traceback.extract_tb(e.__traceback__)[-1]
                text = f"{type(e).__name__} {str(e)[:1200]} at {trace.filename}:{trace.lineno} {trace.line}"
                key = text if isinstance(e, TooSlow) else f"{type(e).__name__} {trace.filename}:{trace.lineno}"
                if isinstance(e, AssertionError):
                    key += str(e)[-300:]
                known = next((f for f in finds if key in f), "")
                if not known:
                    print(f"seed {number}: {text}", flush=True)
                finds.setdefault(known or f"{key} {text}", []).append(number)
            ESCAPED.unlink(missing_ok=True)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    return finds, tried


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
