"""Canary: a secret in surroundings of its own, and everything that is searched for it: files, words, processes."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.labs import Ran, TestLab

NEEDS = (
    r"-m lab ",
    r"lab/runs/.*supervise|lab\.runs\.supervise",
    r"use\.py|lab\.sdk\.call",
    r"^git\b.*\bfetch\b|git-remote-http|git remote-http|^\S*/git-core/git\b",
)
"""Whose environment may hold a secret: Lab, a run that declares it, its supervisor's program, the parts of a fetch."""


def forms(secret: str) -> list[bytes]:
    """How a secret might be hidden in what is written: base64 wherever it begins in what was encoded."""
    raw = secret.encode()
    coded = [base64.b64encode(b"x" * n + raw)[n and 4 : -4] for n in range(3)]
    whole = [raw, raw[::-1], raw.hex().encode(), secret.encode("utf-16-le"), secret.encode("utf-16-be")]
    return [*whole, *coded, urllib.parse.quote(secret, safe="").encode()]


def leaks(top: Path, secrets: Iterable[str], *, but: Iterable[str] = ()) -> list[str]:
    """Files below a folder that hold a secret, and names that do."""
    found, spared = [], [top / b for b in but]
    looked = [(s, form) for s in secrets for form in forms(s)]
    for folder, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(folder) / name
            if any(path == b or b in path.parents for b in spared):
                continue
            data = os.fsencode(name)
            data += (
                os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            )
            found += [f"{path}: {s}" for s, form in looked if form in data]
    return found


class Watch(threading.Thread):
    """Reads every other process's arguments and environment while somebody works."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(daemon=True)
        self.secrets = list(secrets)
        self.seen: set[str] = set()
        self.needed: set[str] = set()
        self.looks = 0
        self._over = threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """It looks no more."""
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.is_set():
            self.looks += 1
            for pid in os.listdir("/proc"):
                if pid.isdigit() and int(pid) != os.getpid():
                    self._look(Path("/proc", pid))
            time.sleep(0.003)

    def _look(self, process: Path) -> None:
        try:
            words = (process / "cmdline").read_bytes()
            environ = (process / "environ").read_bytes()
        except OSError:
            return
        if not words:
            return  # it is ending, or between two programs: it has no name to judge by
        line = words.replace(b"\0", b" ").decode(errors="replace")
        for secret in self.secrets:
            if secret.encode() in words:
                self.seen.add(f"{secret} in the arguments of {line[:200]}")
            if secret.encode() in environ:
                which = self.needed if any(re.search(n, line) for n in NEEDS) else self.seen
                which.add(f"{secret} in the environment of {line[:200]}")


class Ground:
    """A lab with a home and a folder for temporary files of its own, and all that was said in it."""

    def __init__(self, at: Path, files: dict[str, str], secrets: Iterable[str], head: str = "", **env: str) -> None:
        self.at, self.secrets, self.said = at, list(secrets), ""
        for name in ("home", "tmp"):
            (at / name).mkdir(parents=True, exist_ok=True)
        self.lab = TestLab.make(at / "lab", files, head)
        self.env = {"HOME": str(at / "home"), "TMPDIR": str(at / "tmp"), **env}
        self.seen: set[str] = set()

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Every process that runs inside is looked at."""
        with Watch(self.secrets) as watch:
            yield watch
        self.seen |= watch.seen

    def run(self, *words: str, **env: str) -> Ran:
        """A command as a process of its own, by which Lab alone is told the secrets."""
        ran = self.lab.run(*words, env={**self.env, **env})
        self.said += f"$ lab {' '.join(words)}\n{ran.out}{ran.err}"
        return ran

    def leaks(self, *but: str) -> list[str]:
        """Wherever the canary is that it should not be; `but` names files below where it was put."""
        said = [f"said: {s}" for s in self.secrets for form in forms(s) if form in self.said.encode()]
        return [*said, *sorted(self.seen), *leaks(self.at, self.secrets, but=but)]


CANARY = "canary/+7Qx41z &%-9Kd82w"
CANARY_PLAIN = "canary-9Kd82w-plain"
"""One that may stand in an address."""
WORDS = (("plan", "--json"), ("plan", "--markdown"), ("status", "--json"), ("doctor",), ("state", "export"))
"""What is asked after every deed, since it shows what is recorded."""


def reference(source: str, at: Path) -> str:
    """A reference to the canary from a source; what the source needs lies in `at`."""
    at.mkdir(parents=True, exist_ok=True)
    (at / "token").write_text(CANARY + "\n")
    return {"env": "env:CANARY", "file": f"file:{at}/token", "command": f"'command:cat {at}/token'"}[source]


def given(source: str) -> dict[str, str]:
    """The variables a source needs."""
    return {"CANARY": CANARY} if source == "env" else {}


def told(ground: Ground, *deeds: tuple[str, ...], fine: tuple[int, ...] = (0,)) -> list[Ran]:
    """Each deed ends with one of these codes, and nothing of the canary is anywhere."""
    with ground.watching() as watch:
        done = [ground.run(*words) for words in deeds]
        for words in WORDS:
            ground.run(*words)
    assert watch.looks > 10
    assert "a fault in Lab" not in ground.said, ground.said
    failed = [(words, r.code, r.err) for words, r in zip(deeds, done, strict=True) if r.code not in fine]
    assert not failed, failed
    found = ground.leaks()
    assert not found, found
    return done
