"""What is due is known by calendar, done or noted, and never switched on silently.

What only macOS says was written down from its manuals and is parsed here. Proves S0-4.7-1, S0-4.7-2, S0-4.7-5,
S1-D7.1-1.
"""

from __future__ import annotations

import gzip
import json
import os
import plistlib
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from lab.adapters import upkeep
from lab.core import schedule
from lab.core.calendar import due
from lab.kinds.maintenance import Maintenance
from tests.host import sandbox


def cli(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "lab", "-C", str(root), *words], env=env, capture_output=True, text=True
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A lab with maintenance applied."""
    (tmp_path / "conf/maintenance").mkdir(parents=True)
    (tmp_path / "conf/lab.yaml").write_text(
        f"lab: {{name: studio, id: 6f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42, store: {tmp_path}/store}}\n"
        "resources: {maintenance: '*'}\n"
    )
    (tmp_path / "conf/maintenance/host.yaml").write_text(
        "logs: {size: 1kB, keep: 2}\ntasks: {logs: weekly, encryption: monthly, review docs: quarterly}\n"
    )
    done = cli(tmp_path, "apply", "--yes")
    assert done.returncode == 0, done
    return tmp_path


def test_it_is_applied_once_listed_when_due_and_noted_when_done(root: Path) -> None:
    assert "No changes" in cli(root, "plan").stdout
    found = json.loads(cli(root, "maintenance", "due", "--now", "2030-01-01", "--json").stdout)
    assert {d["task"] for d in found} == {"logs", "encryption", "review docs"}
    (root / "state/log").mkdir(exist_ok=True)
    (root / "state/log/big.log").write_text("line\n" * 1000)
    assert "1 packed" in cli(root, "maintenance", "run", "logs").stdout
    assert gzip.decompress((root / "state/log/big.log.1.gz").read_bytes()) == b"line\n" * 1000
    assert (root / "state/log/big.log").stat().st_size == 0
    assert "noted" in cli(root, "maintenance", "run", "review docs").stdout
    assert {d["task"] for d in json.loads(cli(root, "maintenance", "due", "--json").stdout)} == {"encryption"}
    done = cli(root, "maintenance", "run", "lgos")
    assert done.returncode == 1
    assert "did you mean `logs`" in done.stderr + done.stdout
    (root / "conf/maintenance/host.yaml").unlink()
    assert cli(root, "apply", "--yes").returncode == 0
    assert not (root / "state/maintenance/settings.json").exists()


def test_status_shows_what_is_due_and_the_command_for_each(root: Path) -> None:
    said = cli(root, "status").stdout
    assert "! due: encryption, logs: `lab maintenance run`" in said
    assert "! due: review docs (quarterly): do it, then `lab maintenance run 'review docs'`" in said
    assert cli(root, "maintenance", "run").returncode == 0
    assert cli(root, "maintenance", "run", "review docs").returncode == 0
    after = cli(root, "status").stdout
    assert "due:" not in after
    assert "encrypted by" in after
    (root / "conf/maintenance/host.yaml").write_text("free: 1000TB\ntasks: {}\n")
    assert cli(root, "apply", "--yes").returncode == 0
    said = cli(root, "status").stdout
    assert "free at" in said
    assert "`lab maintenance clean`" in said


@pytest.mark.root
@pytest.mark.parametrize("clean", ["report", "take"])
def test_a_full_store_is_cleaned_of_what_nothing_needs_and_of_nothing_else(clean: str, tmp_path: Path) -> None:
    """A store on a small tmpfs, past the threshold. Proves S0-5.3-5."""
    if why := sandbox.possible():
        pytest.skip(why)
    for folder in ("conf/maintenance", "conf/model", "store"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "conf/lab.yaml").write_text(
        f"lab: {{name: studio, id: 6f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42, store: {tmp_path}/store}}\n"
    )
    (tmp_path / "conf/maintenance/host.yaml").write_text(f"free: 2140MB\nclean: {clean}\ntasks: {{disk: weekly}}\n")
    for name in ("needed", "old"):
        (tmp_path / name).write_bytes(os.urandom(15 << 20))
        (tmp_path / f"conf/model/{name}.yaml").write_text(f"path: {name}\nplace: copy\n")
    script = f"""
set -e
cd {tmp_path}
mount -t tmpfs -o size=2g tmpfs {tmp_path}/store
lab() {{ {sys.executable} -m lab -q "$@"; }}
used() {{ du -sk {tmp_path}/store | cut -f1; }}
lab apply --yes >/dev/null
rm conf/model/old.yaml
lab apply --yes >/dev/null
used
lab gc --dry-run --json | {sys.executable} -c 'import json, sys; print(json.load(sys.stdin)["bytes"])'
lab maintenance run disk
used
lab verify model.needed >/dev/null && echo whole
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    before, waste, said, after, whole = done.stdout.splitlines()
    assert int(waste) >= 15 << 20
    assert whole == "whole"
    if clean == "report":
        assert "by `lab gc --yes`" in said
        assert after == before
    else:
        assert "freed" in said
        assert (int(before) - int(after)) * 1024 >= int(waste)


@pytest.mark.parametrize(
    ("every", "last", "today", "behind"),
    [
        ("weekly", date(2026, 1, 25), date(2026, 1, 26), 1),
        ("weekly", date(2026, 1, 26), date(2026, 2, 1), 0),
        ("monthly", date(2026, 1, 31), date(2026, 1, 31), 0),
        ("monthly", date(2026, 1, 31), date(2026, 2, 1), 1),
        ("quarterly", date(2026, 1, 1), date(2026, 3, 31), 0),
        ("quarterly", date(2026, 3, 31), date(2026, 4, 1), 1),
        ("quarterly", date(2025, 12, 31), date(2026, 7, 1), 3),
        ("yearly", date(2024, 2, 29), date(2026, 1, 1), 2),
        ("daily", date(2026, 3, 1), date(2026, 2, 1), 0),
        ("daily", None, date(2026, 2, 1), 1),
    ],
)
def test_what_is_due_follows_whole_weeks_months_and_quarters(every: str, last: date, today: date, behind: int) -> None:
    assert due(every, last, today) == behind


@pytest.mark.skipif(shutil.which("apt") is None, reason="needs apt")
def test_updates_that_wait_are_those_that_apt_lists() -> None:
    listed = subprocess.run(["apt", "list", "--upgradable"], capture_output=True, text=True).stdout
    names = [x.split("/")[0] for x in listed.splitlines() if "upgradable from" in x]
    assert [p["name"] for p in upkeep.upgradable()] == names
    assert names[:1] == [] or names[0] not in [p["name"] for p in upkeep.upgradable([names[0]])]


def test_what_macos_and_linux_say_is_read() -> None:
    assert upkeep.filevault("FileVault is On.\n")["encrypted"]
    off = upkeep.filevault("FileVault is Off.\n")
    assert not off["encrypted"]
    assert "fdesetup enable" in off["do"]
    said = "Software Update found the following:\n* Label: macOS 26.1-25B78\n\tTitle: macOS 26.1, Version: 26.1, Size: 3KiB, Recommended: YES,\n"  # noqa: E501
    assert upkeep.system_updates(said) == [{"name": "macOS 26.1", "from": "", "to": "26.1", "source": "macOS"}]
    brew = (
        '{"formulae": [{"name": "restic", "installed_versions": ["0.17.0"], "current_version": "0.18.0"}], "casks": []}'
    )
    assert upkeep.brewed(brew) == [{"name": "restic", "from": "0.17.0", "to": "0.18.0", "source": "formulae"}]
    crypt = {"name": "luks", "type": "crypt", "mountpoints": ["/"]}
    disk = {"name": "sda", "type": "disk", "mountpoints": [None], "children": [crypt]}
    assert upkeep.luks(json.dumps({"blockdevices": [disk]}))["encrypted"]
    plain = {"name": "vda", "type": "disk", "mountpoints": ["/"]}
    assert not upkeep.luks(json.dumps({"blockdevices": [plain]}))["encrypted"]
    assert "encrypted" in upkeep.encryption()


@pytest.mark.parametrize("every", ["hourly", "daily", "weekly", "monthly", "03:30", "sun 04:00", "fri 23:59"])
def test_a_schedule_is_what_launchd_systemd_and_cron_read_as_meant(every: str, tmp_path: Path) -> None:
    words = ["/opt/a b/lab", "-C", "/lab %i $x", "backup", "now", 'odd "name"']
    job = plistlib.loads(schedule.launchd("lab-x", every, words, "/tmp/log"))
    assert job["ProgramArguments"] == words
    when = schedule.When.parse(every)
    assert job["StartCalendarInterval"].get("Hour") == when.hour
    assert len(schedule.cron(every).split()) == 5
    if shutil.which("systemd-analyze"):
        said = subprocess.run(
            ["systemd-analyze", "calendar", schedule.on_calendar(every)], capture_output=True, text=True
        )
        assert said.returncode == 0, said
        real = ["/bin/true", *words[1:]]
        for name, content in schedule.systemd("lab-x", every, real).items():
            (tmp_path / name).write_text(content)
        verified = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / "lab-x.timer")], capture_output=True, text=True
        )
        assert "lab-x" not in verified.stderr, verified.stderr


def test_a_bad_window_is_a_problem() -> None:
    with pytest.raises(ValueError, match="expected hourly"):
        Maintenance(window="sometimes")
