"""A lock of pins names no host: versions and hashes are committed, archives come from whatever index is configured.

Proves: issue 3, envs of real Python packages in a repository that names no registry; two machines, equal digests.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab.app.lab import Lab
from tests.envs.test_lock import wheel
from tests.labs import REPO, TestLab

ENV = 'python: host\nlock: pins\npip: ["pinned-one>=1"]\ncommands: ["python -c \'import pinned_one\'"]\n'


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index on loopback, as PEP 503 lays it out: one folder a package."""
    root = tmp_path / "index"
    (root / "pinned-one").mkdir(parents=True)
    handler = functools.partial(Quiet, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/")
    for name in ("UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    yield root / "pinned-one"
    server.shutdown()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def offer(index: Path, version: str, more: str = "") -> None:
    wheel(index, "pinned_one", version, more)


def pinned(lab: TestLab) -> dict[str, object]:
    return yaml.safe_load((lab.root / "conf/lock/env/one.yaml").read_text())


def test_pins_name_no_host_and_two_machines_are_equal(tmp_path: Path, index: Path) -> None:
    """Locked, applied, nothing to do; elsewhere, from the committed pins alone, equal digests although 2.0 is out."""
    offer(index, "1.0")
    lab = TestLab.make(tmp_path / "a", {"env/one": ENV})
    assert lab("lock").code == 0
    assert [p.name for p in (lab.root / "conf/lock/env").iterdir()] == ["one.yaml"]
    text = (lab.root / "conf/lock/env/one.yaml").read_text()
    assert "://" not in text
    assert "127.0.0.1" not in text
    assert "pinned-one: 1.0" in text.replace("'", "")
    assert lab("apply", "--yes").code == 0
    assert "No changes" in lab("plan").out
    offer(index, "2.0")
    other = TestLab.make(tmp_path / "b", {"env/one": ENV})
    shutil.copytree(lab.root / "conf/lock", other.root / "conf/lock")
    assert other("apply", "--yes").code == 0
    assert "No changes" in other("plan").out
    records = [next(r for a, r in Lab.find(one.root).records.items() if a == "env.one") for one in (lab, other)]
    assert records[0].digest == records[1].digest
    assert records[0].content == records[1].content != ""
    assert lab("verify").code == 0
    assert "pinned-one==1.0 --hash=sha256:" in lab("env", "export", "one", "--format", "requirements").out
    refused = lab("env", "export", "one", "--format", "conda-lock")
    assert refused.code == 1
    assert "holds pins, not a conda-lock file" in refused.err


def test_another_file_under_the_pinned_name_is_refused(tmp_path: Path, index: Path) -> None:
    """By the installer, whose hash does not match; and by a new lock, until somebody removes the pin."""
    offer(index, "1.0")
    lab = TestLab.make(tmp_path / "a", {"env/one": ENV})
    assert lab("lock").code == 0
    before = pinned(lab)
    offer(index, "1.0", "tampered = True\n")
    shutil.rmtree(tmp_path / "uv", ignore_errors=True)
    failed = lab("apply", "--yes")
    assert failed.code == 1
    assert "not the one that was locked" in failed.out + failed.err
    assert not (lab.root / "state/envs/one").exists()
    said = lab("lock")
    assert said.code == 1
    assert "is not the file that was pinned" in said.out + said.err
    assert pinned(lab) == before


def test_pins_are_for_python_packages_only(tmp_path: Path) -> None:
    """Conda packages are named by their channels: a lock of pins cannot hold them."""
    lab = TestLab.make(tmp_path, {"env/one": 'lock: pins\nchannels: [conda-forge]\nconda: ["zlib"]\n'})
    said = lab("validate")
    assert said.code == 1
    assert "conf/env/one.yaml:1" in said.out + said.err
    assert "pins are for envs of Python packages only" in said.out + said.err


def test_every_template_comes_with_pins_for_both_platforms() -> None:
    """Versions and hashes of all packages, for osx-arm64 and linux-64, and the name of no host (S0-US-010-1)."""
    folder = REPO / "recipes/env"
    names = {p.stem for p in folder.glob("*.yaml")}
    assert names == {p.stem for p in (folder / "lock").glob("*.yaml")}
    for name in names:
        text = (folder / "lock" / f"{name}.yaml").read_text()
        assert "://" not in text
        for platform in ("osx-arm64", "linux-64"):
            part = yaml.safe_load(text)["platforms"][platform]
            assert part["packages"].keys() == part["pins"].keys()
            assert all(pin.startswith("sha256:") for pin in part["pins"].values())
