"""A repository whose making was cut short is made anew where nothing was saved there; anything else is left alone."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lab.adapters import repository
from lab.adapters.borg import Repository as Borg
from lab.adapters.restic import Repository as Restic
from lab.core.problem import Problems
from tests.faults import hook
from tests.faults.hook import Fault
from tests.labs import REPO

needs_borg = pytest.mark.skipif(shutil.which("borg") is None, reason="needs borg")
needs_restic = pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(repository, "QUIET", 0.5)
    monkeypatch.setenv("BORG_BASE_DIR", str(tmp_path / "borg"))
    monkeypatch.setenv("BORG_PASSPHRASE", "correct horse")


def begun(place: Path, at: int) -> int:
    """borg's own `init`, killed before one of its effects; its exit status."""
    fault = Fault(str(place), f"{place}.log", at).to_json()
    code = f"from tests.faults import hook; hook.install(hook.Fault.from_json({fault!r}))"
    code += "; import os; os.supports_follow_symlinks.add(os.utime)"  # borg asks for it
    code += "; import sys; from borg.archiver import main; sys.exit(main())"
    python = Path(shutil.which("borg") or "").read_text().partition("\n")[0].removeprefix("#!").strip().split()[0]
    words = [python, "-c", code, "init", "--encryption", "repokey-blake2", str(place)]
    return subprocess.run(words, cwd=REPO, check=False, capture_output=True).returncode


@needs_borg
@pytest.mark.slow
def test_an_init_of_borg_killed_anywhere_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real borg, killed before its effects: the next one makes the repository, and it keeps what is saved there."""
    monkeypatch.setattr(repository, "QUIET", 0)  # nobody else is at work
    place, source = tmp_path / "repo", tmp_path / "notes"
    source.write_text("weeks of work\n")
    if begun(place, 0):
        pytest.skip("this borg is no Python script")
    sites = {x["site"]: x["n"] for x in hook.read(f"{place}.log") if "n" in x}
    assert len(sites) > 8
    for at in sites.values():
        shutil.rmtree(place)
        assert begun(place, at) == -9
        made = Borg(str(place), lambda: "correct horse")
        made.init()
        made.backup([str(source)], (), ["backup:one"], lambda *a: None)
        assert made.init() is False
        assert len(made.snapshots("backup:one")) == 1


@needs_borg
def test_what_is_no_cut_short_init_of_borg_is_left_alone(tmp_path: Path) -> None:
    """A folder with a README and data of somebody's own, and a repository that lost its configuration."""
    mine = tmp_path / "mine"
    (mine / "data").mkdir(parents=True)
    (mine / "README").write_text("My notes.\n")
    (mine / "data/1").write_text("weeks of work")
    with pytest.raises(Problems, match="holds something that is no repository"):
        Borg(str(mine), lambda: "correct horse").init()
    assert (mine / "data/1").read_text() == "weeks of work"
    place = tmp_path / "repo"
    assert Borg(str(place), lambda: "correct horse").init()
    (place / "config").rename(tmp_path / "config")
    with pytest.raises(Problems, match="holds something that is no repository"):
        Borg(str(place), lambda: "correct horse").init()
    (tmp_path / "config").rename(place / "config")
    with pytest.raises(Problems, match="the password does not open"):
        Borg(str(place), lambda: "another").init()
    assert Borg(str(place), lambda: "correct horse").init() is False


@needs_restic
def test_an_init_of_restic_cut_short_is_made_anew_but_not_under_somebodys_hands(tmp_path: Path) -> None:
    """It is gone once nothing changed for a while; while another machine still makes it, it is waited for."""
    place = tmp_path / "repo"
    made = Restic(str(place), lambda: "correct horse")
    assert made.init()
    (place / "config").rename(tmp_path / "config")
    assert made.init(), "made anew"
    (place / "config").rename(tmp_path / "config")

    def slowly() -> None:
        for n in range(6):
            time.sleep(0.3)
            (place / "keys" / f"tmp{n}").touch()
            (place / "keys" / f"tmp{n}").unlink()
            (place / "locks" / str(n)).mkdir()
        for n in range(6):
            (place / "locks" / str(n)).rmdir()
        (tmp_path / "config").rename(place / "config")

    other = threading.Thread(target=slowly)
    other.start()
    assert made.init() is False, "the other's"
    other.join()
