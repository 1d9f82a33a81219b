"""Killed at twenty random moments, whatever server a model comes from, the next apply finishes it and repeats nothing.

(S0-5.2-2, S0-US-009-5)
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.models import make, offers
from tests.models.conflab import Folder
from tests.models.servers import Server, sha256

pytestmark = pytest.mark.slow


def hub(server: Server, lab: Folder) -> dict[str, str]:
    make.safetensors(server.root / "org/tiny", shards=2)
    _more(server.root / "org/tiny")
    lab.declare("m", hub="org/tiny", endpoint=server.url)
    held = offers.contents(server.root / "org/tiny")
    return {sha256(d): f"/{n}" for n, d in held.items()}


def url(server: Server, lab: Folder) -> dict[str, str]:
    _more(server.root, 6)
    held = offers.contents(server.root)
    lab.declare("m", url={n: {"url": f"{server.url}/{n}", "sha256": sha256(d)} for n, d in held.items()})
    return {sha256(d): f"/{n}" for n, d in held.items()}


def ollama(server: Server, lab: Folder) -> dict[str, str]:
    make.gguf(server.root / "tiny.gguf")
    kinds = ("messages", "template", "license", "system")
    layers = {k: random.Random(n).randbytes(150_000) for n, k in enumerate(kinds)}
    block, asked = offers.ollama(server, {"model": (server.root / "tiny.gguf").read_bytes(), **layers})
    lab.declare("m", **block)
    return asked


def release(server: Server, lab: Folder) -> dict[str, str]:
    make.gguf(server.root / "tiny.gguf")
    _more(server.root)
    block, asked = offers.release(server, sorted(offers.contents(server.root)))
    lab.declare("m", **block)
    return asked


def modelscope(server: Server, lab: Folder) -> dict[str, str]:
    make.safetensors(server.root / "ms", shards=2)
    _more(server.root / "ms")
    block, asked = offers.modelscope(server, server.root / "ms")
    lab.declare("m", **block)
    return asked


def _more(folder: Path, count: int = 4) -> None:
    for n in range(count):
        (folder / f"extra-{n}.txt").write_bytes(random.Random(n).randbytes(150_000))


SOURCES = (hub, url, ollama, release, modelscope)


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.__name__)
def test_twenty_kills_of_apply_at_random_moments_and_the_next_finishes(
    source: object, server: Server, tmp_path: Path
) -> None:
    lab = Folder(tmp_path / "lab")
    asked = source(server, lab)  # type: ignore[operator]
    lab.ok("lock")
    server.throttle = 0.01
    with _begun(lab) as process:
        began = time.monotonic()
        told, _ = process.communicate()
        took = time.monotonic() - began
    assert process.returncode == 0, told.decode()
    whole, spoiled = set[str](), _spoil(lab)
    moments, kills, cut = random.Random(11), 0, 0
    while kills < 20:
        seen = len(server.log)
        with _begun(lab) as process:
            time.sleep(moments.uniform(0, 0.7 * took))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            told, _ = process.communicate()
        # What was whole before this attempt was not fetched.
        again = [
            p for m, p, _, _ in server.log[seen:] for s in whole & set(asked) if m == "GET" and p.endswith(asked[s])
        ]
        assert again == []
        blobs = {b.name: sha256(b.read_bytes()) for b in lab.store.glob("blobs/sha256/*/*")}
        whole = {name for name, digest in blobs.items() if name == digest}
        spoiled -= whole
        assert set(blobs) == whole | spoiled, "nothing has a blob's name before it is whole"
        work = lab.root / "state/work"
        if process.returncode == 0:
            # It finished: begin again from nothing but the blobs' names.
            whole, spoiled = set(), _spoil(lab)
            continue
        assert process.returncode == -signal.SIGKILL, told.decode()
        kills += 1
        cut += bool(whole or list(work.rglob("*")) or list(lab.store.glob("incoming/*")))
    assert cut > 5, "the kills struck while something was being made"
    server.throttle = 0
    lab.ok("apply", "--yes")
    assert "No changes" in lab.ok("plan")
    lab.ok("verify")
    lab.ok("gc", "--yes", "--older", "0")
    assert "as laid out" in lab.ok("models", "check")
    assert not list((lab.store / "incoming").iterdir())
    assert not [p for p in (lab.root / "state/work").rglob("*") if p.is_file()]


@contextmanager
def _begun(lab: Folder) -> Iterator[subprocess.Popen[bytes]]:
    """An apply whose first resource was just started."""
    with lab.process("apply", "--yes", "--json-events") as process:
        assert process.stdout
        for line in process.stdout:
            if b'"start"' in line:
                break
        yield process


def _spoil(lab: Folder) -> set[str]:
    """Every blob has other bytes; their names."""
    blobs = list(lab.store.glob("blobs/sha256/*/*"))
    for blob in blobs:
        blob.chmod(0o644)
        blob.write_bytes(b"spoiled" + blob.read_bytes()[7:])
    return {b.name for b in blobs}
