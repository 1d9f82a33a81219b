"""Backups by borg and Time Machine: the same verbs, the same problems, the same files back.

Real borg. Time Machine's program is macOS's own: a recorder stands in for `tmutil`, and its arguments are checked.
"""

from __future__ import annotations

import json
import os
import plistlib
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lab.adapters import schedule
from lab.adapters.borg import Repository, _holders, _lives, host_id
from lab.adapters.patterns import excluded, plain, regex
from lab.adapters.time_machine import Repository as TimeMachine
from lab.app import backup
from lab.app.lab import Lab
from lab.app.restore import restore
from lab.core.problem import Problems
from tests.host.test_backup import LAB, cli, tree

needs_borg = pytest.mark.skipif(shutil.which("borg") is None, reason="needs borg")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """An applied lab with one backup by borg."""
    monkeypatch.setenv("LAB_TEST_PASSWORD", "correct horse")
    monkeypatch.setenv("BORG_BASE_DIR", str(tmp_path / "borg"))
    monkeypatch.setenv("BORG_PASSPHRASE", "of somebody else")
    root = tmp_path / "lab"
    (root / "conf/backup").mkdir(parents=True)
    (root / "conf/lab.yaml").write_text(LAB.replace("STORE", str(tmp_path / "store")))
    (root / "conf/backup/nightly.yaml").write_text(
        "tool: borg\nrepo: ../repo\npassword: env:LAB_TEST_PASSWORD\npaths: [data]\nexclude: ['*.log', data/tmp]\n"
        "keep: {last: 2, daily: 0, weekly: 0, monthly: 0}\n"
    )
    (root / "data/tmp").mkdir(parents=True)
    for name in ("notes.txt", "odd [name]*{x}.txt", "big.log", "tmp/scratch"):
        (root / "data" / name).write_text(f"weeks of work in {name}\n")
    (root / "data/link").symlink_to("notes.txt")
    done = cli(root, "apply", "--yes")
    assert done.returncode == 0, done
    return Lab.find(root)


def place(lab: Lab, password: str = "correct horse") -> Repository:
    return Repository(str(lab.root.parent / "repo"), lambda: password)


@needs_borg
def test_what_borg_kept_comes_back_bit_for_bit_and_excludes_stay_out(lab: Lab) -> None:
    assert "No changes" in cli(lab.root, "plan").stdout
    before = tree(lab.root / "data")
    first = backup.now(lab)[0]
    assert first["files"] > 3
    assert backup.snapshots(lab)[0]["id"] == first["snapshot"][:8]
    assert backup.drill(lab)["files"] > 3
    (lab.root / "data/notes.txt").write_text("spoilt\n")
    backup.now(lab)
    shutil.rmtree(lab.root / "data")
    restore(lab, at=first["snapshot"][:8])
    kept = {n: d for n, d in before.items() if n not in ("big.log", "tmp/scratch")}
    assert tree(lab.root / "data") == kept
    assert os.readlink(lab.root / "data/link") == "notes.txt"


@needs_borg
def test_borg_thins_as_declared_and_a_name_of_another_backup_is_left_alone(lab: Lab) -> None:
    ids = [backup.now(lab)[0]["snapshot"] for _ in range(2)]
    place(lab).backup([str(lab.root / "data")], [], ("backup:other", "lab:1"), lambda done, total: None)
    time.sleep(1.1)  # borg counts archives of one second as one
    ids.append(backup.now(lab)[0]["snapshot"])
    assert [s["id"] for s in backup.snapshots(lab)] == [i[:8] for i in ids[1:]]
    assert len(place(lab).snapshots("backup:other")) == 1


@needs_borg
def test_a_wrong_password_of_borg_is_a_problem_and_changes_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    backup.now(lab)
    monkeypatch.setenv("LAB_TEST_PASSWORD", "wrong")
    for verb in ("now", "list", "check"):
        done = cli(lab.root, "backup", verb)
        assert done.returncode == 1
        assert "the password does not open" in done.stderr
    assert len(place(lab).snapshots()) == 1


@needs_borg
def test_the_password_is_in_no_argument_or_environment_of_borg(lab: Lab) -> None:
    made = place(lab)
    words = made.command("list", made.repo, password=7)
    told = made.environment(7)
    assert "correct horse" not in " ".join((*words, *(v for k, v in told.items() if k != "LAB_TEST_PASSWORD")))
    assert told["BORG_PASSPHRASE_FD"] == "7"
    assert "BORG_PASSPHRASE" not in told


@needs_borg
def test_damage_is_found_by_a_plain_check_of_borg(lab: Lab) -> None:
    (lab.root / "data/blob").write_bytes(os.urandom(300_000))
    backup.now(lab)
    assert backup.check(lab, subset="100%")
    segment = max((lab.root.parent / "repo/data").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o600)
    segment.write_bytes(data)
    with pytest.raises(Problems, match="damaged"):
        backup.check(lab)


@needs_borg
def test_a_killed_backup_of_borg_leaves_a_lock_that_is_removed_and_a_live_one_is_respected(lab: Lab) -> None:
    backup.now(lab)
    repo = lab.root.parent / "repo"
    (lab.root / "data/large").write_bytes(os.urandom(60_000_000))
    child = subprocess.Popen(
        [sys.executable, "-m", "lab", "-C", str(lab.root), "backup", "now"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    end = time.monotonic() + 60
    while not (repo / "lock.exclusive").exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    end = time.monotonic() + 30
    while any(_lives(pid) for _, pid in _holders(repo)) and time.monotonic() < end:  # until the system has reaped it
        time.sleep(0.05)
    backup.unlock(lab)
    assert not (repo / "lock.exclusive").exists()
    backup.now(lab)
    (repo / "lock.exclusive").mkdir()
    (repo / "lock.exclusive" / f"{host_id()}.{os.getpid()}-0").touch()
    with pytest.raises(Problems, match="in use"):
        backup.unlock(lab)
    with pytest.raises(Problems, match="in use"):
        backup.now(lab)


@needs_borg
def test_a_missing_source_and_a_repository_of_another_kind_are_problems(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(Problems, match="is not there"):
        place(lab).backup(["/no/such/place"], [], ("x",), lambda done, total: None)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config").write_text("restic's\n")
    with pytest.raises(Problems, match="no borg repository"):
        Repository(str(tmp_path / "other"), lambda: "x").init()
    shutil.rmtree(lab.root.parent / "repo")
    with pytest.raises(Problems, match="there is no repository"):
        backup.now(lab)


def test_patterns_mean_the_same_to_every_tool() -> None:
    out = excluded(["*.log", "/a/b[*", "sub/tmp", "/x/**/y"])
    assert [out(p) for p in ("/q.log", "/a/b/c.log/d", "/z/sub/tmp", "/x/1/2/y", "/x/y", "/a/subtmp")] == [
        True, True, True, True, True, False,
    ]  # fmt: skip
    assert regex("/a", root="/?").startswith("^/?a")
    assert plain(r"/a/b\[1\]\*") == "/a/b[1]*"
    assert plain("/a/*") == plain("*.log") == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("repo: /b", "restic encrypts with a password, and none is named"),
        ("tool: borg\nrepo: s3:bucket\npassword: env:P", "borg does not know repositories such as s3:bucket"),
        ("repo: ssh://nas/b\npassword: env:P", "restic does not know repositories such as ssh://nas/b"),
        ("tool: time_machine\nrepo: /Volumes/tm\npassword: env:P", "Time Machine takes no `password`"),
        ("tool: time_machine\nrepo: /Volumes/tm\nkeep: {daily: 3}", "Time Machine takes no `keep`"),
        ("tool: time_machine\nrepo: /Volumes/tm\nexclude: ['*.log']", "no patterns such as *.log"),
        ("tool: rsync\nrepo: /b", "tool"),
    ],
)
def test_what_a_tool_cannot_do_is_told_at_validate(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "conf/backup").mkdir(parents=True)
    (tmp_path / "conf/lab.yaml").write_text(LAB.replace("STORE", str(tmp_path / "store")))
    (tmp_path / "conf/backup/nightly.yaml").write_text(f"{text}\n")
    done = cli(tmp_path, "validate")
    assert done.returncode == 1, done
    assert said in done.stdout + done.stderr
    assert "conf/backup/nightly.yaml:" in done.stdout + done.stderr


class Recorder(TimeMachine):
    """Time Machine with `tmutil` replaced by what its manual says it answers."""

    asked: list[tuple[str, ...]]
    answers: dict[str, str]

    def run(self, *words: str, **how: Any) -> tuple[int, str, str]:
        self.asked.append(words)
        if words[0] == "restore":
            source, to = Path(words[1]), Path(words[2])
            shutil.copytree(source, to, symlinks=True) if source.is_dir() else shutil.copy2(source, to)
        return 0, self.answers.get(words[0], ""), ""


def test_time_machine_is_asked_in_the_words_of_its_manual(tmp_path: Path) -> None:
    data, staged = tmp_path / "data", tmp_path / "state/staged/nightly"
    data.mkdir()
    (data / "a").write_text("a\n")
    (data / "large").write_text("fetched again\n")
    (data / "live.sqlite").write_text("live\n")
    copy = staged / "databases" / str(data / "live.sqlite").lstrip("/")
    copy.parent.mkdir(parents=True)
    copy.write_text("consistent\n")
    index = staged / "manifest.json"
    index.write_text(json.dumps({"paths": [str(data)], "files": {str(data / "a"): [2, 0]}, "links": {}}))
    disk = tmp_path / "Volumes/tm"
    lies = disk / "2026-11-26-030000.backup/Macintosh HD - Data"
    shutil.copytree(data, lies / str(data).lstrip("/"))
    shutil.copytree(staged, lies / str(staged).lstrip("/"))
    made = Recorder(str(disk), lambda: "", index=str(index))
    made.asked, stamp = [], str(lies.parent)
    made.answers = {
        "destinationinfo": plistlib.dumps({"Destinations": [{"ID": "D-1", "MountPoint": str(disk)}]}).decode(),
        "latestbackup": f"{stamp}\n",
        "listbackups": f"{disk}/2026-11-25-030000.backup\n{stamp}\n",
        "isexcluded": f"[Included]    {data}\n",
    }
    assert made.init() is False
    excludes = [str(data / "large"), "*.tmp", str(data / "live.sqlite"), str(data / "live.sqlite-wal")]
    told = made.backup([str(data)], excludes, (), lambda done, total: None)
    assert made.asked == [
        ("destinationinfo", "-X"),
        ("addexclusion", str(data / "large")),
        ("isexcluded", str(data)),
        ("destinationinfo", "-X"),
        ("startbackup", "--block", "--destination", "D-1"),
        ("latestbackup", "-m"),
    ]
    (found,) = made.snapshots("backup:nightly")
    assert (found["id"], found["paths"]) == (told["snapshot_id"], [str(data)])
    below = tmp_path / "below"
    below.mkdir()
    made.restore(found["id"], below)
    assert tree(below) == {
        str(p).lstrip("/"): tree(p.parent)[p.name] for p in (data / "a", copy, index) if "sqlite" not in p.name
    }
    assert not (below / str(data).lstrip("/") / "live.sqlite").exists(), "the live one is not restored"
    assert (below / str(copy).lstrip("/")).read_text() == "consistent\n"
    made.check()
    assert made.asked[-1] == ("verifychecksums", str(lies))
    made.answers["isexcluded"] = f"[Excluded]    {data}\n"
    with pytest.raises(Problems, match="kept out of Time Machine"):
        made.backup([str(data)], [], (), lambda done, total: None)
    made.repo = "/Volumes/other"
    with pytest.raises(Problems, match="no destination"):
        made.init()


CRONTAB = """#!/bin/sh
if [ "$1" = -l ]; then cat "$TABLE" 2>/dev/null; else sleep 0.02; cat >"$TABLE.$$" && mv "$TABLE.$$" "$TABLE"; fi
"""


def test_timers_made_side_by_side_undo_each_other_in_no_crontab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crontab").write_text(CRONTAB)
    (tmp_path / "crontab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TABLE", str(tmp_path / "table"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: schedule._cron(f"lab-{n}", f"03:{n:02d}", ["lab"], None), range(16)))  # type: ignore[arg-type]
    lines = (tmp_path / "table").read_text().splitlines()
    assert sorted(x.rpartition(" ")[2] for x in lines) == sorted(f"lab-{n}" for n in range(16))
    assert [schedule.observe(f"lab-{n}") for n in range(16)] == [f"03:{n:02d}" for n in range(16)]
    schedule._cron("lab-3", "", ["lab"], None)  # type: ignore[arg-type]
    assert schedule.observe("lab-3") is None


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"archives": 3}', '{"archive": {"id": 1}}', "borg: killed"])
def test_an_odd_answer_of_borg_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    (tmp_path / "borg").write_text(f"#!/bin/sh\ncat <<'E'\n{said}\nE\n")
    (tmp_path / "borg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    odd = Repository(str(tmp_path / "repo"), lambda: "x")
    with pytest.raises(Problems, match="borg does not say"):
        odd.snapshots()
    with pytest.raises(Problems, match="borg does not say"):
        odd.backup([str(tmp_path)], [], ("x",), lambda done, total: None)


@needs_borg
def test_a_timer_lost_after_its_step_is_made_by_the_apply_after_next(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What finished steps did may be undone before it is looked at; then they are repeated."""
    (tmp_path / "crontab").write_text(
        CRONTAB.replace('cat >"$TABLE.$$"', '[ -e "$TABLE.lose" ] && exit 0; cat >"$TABLE.$$"')
    )
    (tmp_path / "crontab").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TABLE", str(tmp_path / "table"))
    (tmp_path / "table").touch()
    (tmp_path / "table.lose").touch()
    declared = lab.root / "conf/backup/nightly.yaml"
    declared.write_text(declared.read_text() + 'every: "03:00"\n')
    done = cli(lab.root, "apply", "--yes")
    assert "not as declared after its steps ran" in done.stdout + done.stderr, done
    (tmp_path / "table.lose").unlink()
    done = cli(lab.root, "apply", "--yes")
    assert done.returncode == 0, done
    assert "No changes" in cli(lab.root, "plan").stdout
