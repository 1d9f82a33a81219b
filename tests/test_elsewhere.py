"""Lab on a Mac, as far as Linux can tell: every module, its decisions, and its playbooks with a Mac's variables.

Proves S2-8-2, and S2-1.2-1 with tests/envs/test_platforms.py. No line of it has run on macOS: docs/platforms.md.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lab.adapters import ansible
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.host import Host
from lab.core.step import Play
from lab.kinds.guest import Guest
from tests.host.support import Context, Stage
from tests.labs import REPO

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann"
POSIX = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "curses")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_module_can_be_imported_on_a_mac() -> None:
    """None asks, while it is imported, for what CPython has on Linux alone."""
    here, there = json.loads(
        python(
            "import json\nfrom tests import elsewhere as e\nhere, there = {}, {}\n"
            "e.load(into=here); e.become(); e.load(into=there)\nprint(json.dumps([here, there]))"
        ).splitlines()[-1]
    )
    assert set(there) <= set(here), there
    assert not [why for why in here.values() if not why.startswith("ModuleNotFoundError")], here


def test_on_windows_the_rooms_that_only_decide_can_be_imported() -> None:
    """Plans and forecasts need nothing of POSIX; what acts does, and there Lab runs in WSL2."""
    names = python(
        "import sys, importlib\nfrom tests import elsewhere as e\ne.load(into={})\n"
        "for m in [m for m in sys.modules if m == 'lab' or m.startswith('lab.')]: del sys.modules[m]\n"
        f"for m in {POSIX}: sys.modules[m] = None\n"
        "sys.platform = 'win32'\n"
        "for m in e.modules():\n"
        "    if m.split('.')[1] in ('core', 'forecast', 'kinds', 'plan', 'declare'):\n"
        "        importlib.import_module(m); print(m)"
    ).split()
    assert len(names) > 80


@pytest.mark.slow
def test_unit_tests_pass_on_a_mac() -> None:
    """Plans of every kind; but env's scenarios name linux-64: there one is planned for osx-arm64."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.elsewhere", "-p", "no:cacheprovider"]

    def run(*more: str) -> str:
        return subprocess.run([*command, *more], cwd=REPO, capture_output=True, text=True).stdout

    told = run(
        "tests/scenarios", "tests/forecast/test_fit.py", "tests/host/test_macos.py", "-k", "not scenario or not env/"
    )
    assert " failed" not in told, told
    assert "[100%]" in told, told
    told = run("tests/scenarios", "-k", "env/create")
    assert "platform=osx-arm64 lock=DIGEST" in told, told


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_playbooks_are_read_with_the_variables_of_each_system(system: str, tmp_path: Path) -> None:
    """`ansible-playbook --syntax-check` takes them all; one that is broken is not taken."""
    plays = [{"role": r.name, "file": "items.json", "become": True} for r in (REPO / "playbooks/roles").iterdir()]
    given = json.dumps(
        {"lab_system": system, "lab_plays": plays, "ansible_system": system.title(), "ansible_os_family": system}
    )
    broken = tmp_path / "broken.yml"
    broken.write_text("- hosts: localhost\n  tasks:\n    - no_such_module_of_lab: {}\n")
    books = sorted((REPO / "playbooks").glob("*.yml"))
    assert books
    for book, code in [*((b, 0) for b in books), (broken, 4)]:
        command = [
            Path(sys.executable).with_name("ansible-playbook"),
            "--syntax-check",
            "-i",
            "localhost,",
            "-e",
            given,
            book,
        ]
        env = {**os.environ, "ANSIBLE_CONFIG": str(REPO / "playbooks/ansible.cfg"), "ANSIBLE_HOME": str(tmp_path)}
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr


def test_a_macs_roles_say_what_they_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In check mode, a Mac's own list of operations is gone through; its words are in tests/host/test_macos.py."""
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    (tmp_path / "state").mkdir()
    host = Host(platform="osx-arm64")
    made = Context(
        "guest.no-such", str(tmp_path), str(tmp_path / "state"), str(tmp_path), home=str(tmp_path), host=host
    )
    (guest,) = Guest(keys=[KEY]).steps(Change(Address("guest.no-such"), Action.CREATE), made)
    assert isinstance(guest, Play)
    stage = Stage("guest.no-such", tmp_path, tmp_path / "state", tmp_path / "store")
    (told,) = ansible.perform([guest], [stage], check=True)
    assert not isinstance(told, Exception), told
    assert any(line.startswith("wrote /etc/paths.d/") for line in stage.said), stage.said
