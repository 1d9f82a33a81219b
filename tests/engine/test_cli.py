"""The command line: help on one screen, mistakes that suggest the nearest, exit codes, the managed host over SSH.

Proves S4-4.1-2, S2-3.9-4, DC-11 for `lab --help`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lab.cli.main import help_text, verbs
from lab.cli.show import _leaves
from lab.core.facts import ABSENT
from lab.ledger import lock
from tests.labs import REPO, TestLab

FILE = {"file/a": "# a comment\npath: ROOT/a.txt\ncontent: hello  # kept\n"}


def test_help_names_every_verb_and_fits_on_a_screen() -> None:
    """The first screen says what is done every day and names all; the whole help says each once."""
    short, whole = help_text().splitlines(), help_text(whole=True).splitlines()
    named = re.findall(r"[\w-]+", "\n".join(line for line in short if ": " in line or line.startswith("  ")))
    assert set(verbs()) <= set(named)
    assert (len(short) <= 40, max(map(len, short)) <= 120) == (True, True)
    said = [line.split()[0] for line in whole if line.startswith("  ")]
    assert sorted(said) == sorted(verbs())
    assert max(map(len, whole)) <= 132


@pytest.mark.parametrize("verb", sorted(verbs()))
def test_every_verb_has_help(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`lab VERB --help` prints and exits with 0, outside a lab too."""
    with pytest.raises(SystemExit) as e:
        TestLab(tmp_path)(verb, "--help")
    assert e.value.code == 0


def test_unknown_verbs_and_flags_suggest_the_nearest(tmp_path: Path) -> None:
    """A slip of the pen is a problem with the right word in it, and exit code 1."""
    lab = TestLab.make(tmp_path, FILE)
    ran = lab("plam")
    assert ran.code == 1
    assert "did you mean `plan`" in ran.err
    ran = lab("plan", "--jsn")
    assert ran.code == 1
    assert "did you mean `--json`" in ran.err
    assert lab("show", "file.b").code == 1
    ran = lab("state", "shwo")
    assert ran.code == 1
    assert "`lab state` knows no `shwo` — did you mean `show`?\n      why there are list, show, mv," in ran.err
    ran = lab("state")
    assert ran.code == 1
    assert "`lab state` needs a word more\n      why there are list, show, mv," in ran.err
    assert "`lab init` needs dir" in lab("init").err
    assert "`--format` knows no `dto` — did you mean `dot`?" in lab("graph", "--format", "dto").err
    assert "`--format` knows no `ggfu` — did you mean `gguf`?" in lab("models", "--format", "ggfu").err
    assert "`lab models` knows no `compre` — did you mean `compare`?" in lab("models", "compre").err


def test_help_and_version_are_words_too(tmp_path: Path) -> None:
    """`lab help`, `lab help VERB` and `lab version`, as one types them from habit."""
    lab = TestLab.make(tmp_path, FILE)
    assert lab("help").out == lab("--help").out
    assert lab("-v", "help").out == help_text(whole=True) + "\n"
    assert lab("version").out == lab("--version").out
    with pytest.raises(SystemExit) as e:
        lab("help", "plan")
    assert e.value.code == 0


def test_show_puts_the_three_side_by_side(tmp_path: Path) -> None:
    """What is as declared shows what is wanted as well; nested facts are rows of their own; what differs is marked."""
    lab = TestLab.make(tmp_path, FILE)
    lab("apply", "--yes")
    (mode,) = (line.split() for line in lab("show", "file.a").out.splitlines() if "mode" in line)
    assert mode == ["mode", "0644", "0644", "0644"]
    lab.write("conf/file/a.yaml", FILE["file/a"] + "mode: '0600'\n")
    assert "≠ mode  " in lab("show", "file.a").out
    assert list(_leaves("m", [ABSENT, {"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}])) == [
        ("m.a.b", [ABSENT, 1, 1]),
        ("m.a.c", [ABSENT, ABSENT, 2]),
    ]


def test_outside_a_lab_it_offers_init(tmp_path: Path) -> None:
    """Bare `lab` offers `lab init`; a verb says there is no lab."""
    assert "lab init" in TestLab(tmp_path).run().out
    ran = TestLab(tmp_path)("plan")
    assert ran.code == 1
    assert "lab init" in ran.err


def test_bare_lab_says_where_you_are(tmp_path: Path) -> None:
    """Name, counts, what needs attention since the last apply, and what is likely next; a broken conf/ is told."""
    lab = TestLab.make(tmp_path, FILE)
    out = lab.run().out
    assert out == (
        "Lab t · host auto · generation 0\n1 resource declared, 0 recorded.\n"
        "Next: `lab plan`, then `lab apply`. All verbs: `lab --help`.\n"
    )
    lab("apply", "--yes")
    assert lab().out.splitlines()[1:] == [
        "1 resource declared, 1 recorded.",
        "Next: `lab plan`. All verbs: `lab --help`.",
    ]
    lab.write("conf/file/a.yaml", "path: ROOT/a.txt\ncontent: other\n")
    lab.write("conf/file/b.yaml", "path: ROOT/b.txt\ncontent: b\n")
    lab.write("conf/model/m.yaml", "hub: org/model\n")
    assert lab().out.splitlines()[2:] == [
        "  ! since the last apply: 2 new, 1 changed",
        "  ! not locked, so not the same on another machine: model.m",
        "Next: `lab lock`, then `lab plan`, then `lab apply`. All verbs: `lab --help`.",
    ]
    lab.write("conf/file/a.yaml", "pth: x\n")
    assert (lab().code, lab().out) == (1, "2 problems in conf/. Run `lab validate` to see them.\n")


def test_bare_lab_tells_an_apply_that_failed_or_was_killed(tmp_path: Path) -> None:
    """What the last apply left undone is the first thing one sees, and which verb goes on."""
    lab = TestLab.make(tmp_path, {**FILE, "file/b": "path: /proc/none/b\ncontent: b\n"})
    lab("apply", "--yes")
    told = lab().out
    assert "generation 1 (`lab apply`," in told
    assert "did not finish everything; 1 begun and not finished: file.b; `lab apply` continues" in told
    left = {"host": socket.gethostname(), "pid": 1, "user": "me", "verb": "apply", "since": 1}
    lab.write("state/lock", json.dumps(left))
    (tmp_path / "conf/file/b.yaml").unlink()
    assert lab("apply", "--yes", "--allow-destroy").code == 0
    assert "!" not in lab().out
    with contextlib.closing(sqlite3.connect(tmp_path / "state/ledger.sqlite")) as db, db:
        db.execute("UPDATE generation SET outcome = 'running', finished = NULL WHERE number = 2")
    assert "generation 2 (`lab apply`" in lab().out
    assert "was killed" in lab().out
    with lock.held(tmp_path / "state/lock", "apply"):
        assert f"(pid {os.getpid()}, since" in lab().out
        assert "is at work" in lab().out
        assert "is at work: what is to be done may be begun" in lab("status").out
    assert "at work" not in lab("status").out


def test_a_word_that_is_no_override_says_how_to_choose(tmp_path: Path) -> None:
    """`lab plan file.a` is what one types first; a generation's number is shown as such; near addresses are near."""
    lab = TestLab.make(tmp_path, FILE)
    assert "write `--only file.a`" in lab("plan", "file.a").err
    lab("apply", "--yes")
    assert "1 create" in lab("show", "1").out
    assert "there is no generation 7" in lab("show", "7").err
    assert "did you mean" not in lab("show", "file.zzz").err
    assert "did you mean `file.a`" in lab("show", "file.aa").err
    assert "did you mean `--host`" in lab("plan", "--hots", "x").err


def test_the_plan_names_the_apply_that_does_it(tmp_path: Path) -> None:
    """Overrides, choices and a needed `--allow-destroy` stand in the command; one given in vain does not."""
    lab = TestLab.make(tmp_path, {f"file/f{n}": f"path: ROOT/{n}\ncontent: x\n" for n in range(6)})
    lab("apply", "--yes")
    assert (
        "`lab apply offline=true --only file.f1`"
        in (lab.write("1", "other"), lab("plan", "offline=true", "--only", "file.f1", "--allow-destroy").out)[1]
    )
    for n in range(4):
        (tmp_path / f"conf/file/f{n}.yaml").unlink()
    assert "`lab apply --allow-destroy`" in lab("plan", "--allow-destroy").out
    assert lab("apply", "--yes").code == 1
    assert lab("apply", "--yes", "--allow-destroy").code == 0


def test_an_override_shows_in_the_diff(tmp_path: Path) -> None:
    """Hydra overrides go on plan and apply, and show as what they change."""
    lab = TestLab.make(tmp_path, FILE)
    lab("apply", "--yes")
    assert "content: hello → other" in lab("plan", "file.a.content=other").out
    assert "- file.a" in lab("plan", "~file.a").out


def test_config_set_edits_the_yaml_in_place(tmp_path: Path) -> None:
    """A setting changed by command is a minimal change of the file, and shows in the plan; a wrong one is put back."""
    lab = TestLab.make(tmp_path, FILE)
    lab("apply", "--yes")
    assert lab("config", "get", "file.a.content").out == "hello\n"
    assert lab("config", "set", "file.a.content", "bye").code == 0
    text = (tmp_path / "conf/file/a.yaml").read_text()
    assert text == f"# a comment\npath: {tmp_path}/a.txt\ncontent: bye  # kept\n"
    assert "content: hello → bye" in lab("plan").out
    assert lab("config", "set", "file.a.mode", "nonsense").code == 1
    assert (tmp_path / "conf/file/a.yaml").read_text() == text


def test_completion_gives_verbs_flags_and_addresses(tmp_path: Path) -> None:
    """What the shell asks for is answered without a word too many."""
    lab = TestLab.make(tmp_path, FILE)
    assert "plan" in lab("completion", "words", "--", "pl").out.split()
    assert "file.a" in lab("completion", "words", "--", "show", "").out.split()
    assert "complete" in lab("completion", "bash").out


def test_problems_as_json(tmp_path: Path) -> None:
    """With --json, problems are JSON too, with file and line."""
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/a\ncontnt: x\n"})
    ran = lab.run("plan", "--json")
    assert ran.code == 1
    found = json.loads(ran.out)["problems"][0]
    assert found["file"] == "conf/file/a.yaml"
    assert found["line"] == 2
    assert "content" in found["summary"]


def test_help_is_cheap() -> None:
    """`lab --help` imports nothing but the standard library."""
    code = (
        "import sys; from lab.cli.main import help_text; help_text();"
        "print([m for m in ('pydantic','yaml','hydra','omegaconf','sqlite3','git','lab.app') if m in sys.modules])"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}  # counting lines imports sqlite3
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_plan_imports_nothing_heavy(tmp_path: Path) -> None:
    """With a warm cache `lab plan` imports neither Hydra nor any tool's library."""
    lab = TestLab.make(tmp_path, FILE)
    lab("plan")
    heavy = "('hydra','omegaconf','git','mlflow','optuna','ansible_runner','rattler','conda_lock','mlx','numpy','ray')"
    code = (
        f"import sys; from lab.cli.main import main; main(['-C', {str(tmp_path)!r}, 'plan'], sys.stdout, sys.stderr);"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_a_verb_runs_on_the_managed_host(tmp_path: Path) -> None:
    """`lab plan --host studio` runs Lab there over ssh; output and exit code are ours. S0-1.2-2 in part."""
    lab = TestLab.make(tmp_path, FILE)
    lab.write("conf/host/studio.yaml", f"ssh: me@studio\nfolder: {tmp_path}\n")
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\necho "$1" >&2\nexec sh -c "$2"\n')
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    launcher = f'#!/bin/sh\nPYTHONPATH={REPO} exec {sys.executable} -m lab "$@"\n'
    lab.write(".venv/bin/lab", launcher)
    (tmp_path / ".venv/bin/lab").chmod(0o755)
    ran = lab.run("plan", "--host", "studio", "--detailed-exitcode", env={"LAB_SSH": str(ssh)})
    assert "me@studio" in ran.err
    assert "+ file.a" in ran.out
    assert ran.code == 2
    ran = lab.run("plan", "--host", "studo")
    assert "did you mean `studio`" in ran.err
