"""A secret's value is nowhere but where it is used: not in plan, ledger, logs, events, run folders, tracker or argv.

One canary per source goes through the experiments and envs' settings that take secrets; then every byte Lab wrote or
printed is searched for it, in every form of `canary.forms`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.faults.canary import Watch, forms, leaks
from tests.labs import TestLab

CANARIES = {"env": "canary-env-7Qx41z", "file": "canary-file-9Kd82w", "command": "canary-command-3Vb65y"}
PROGRAM = """
import hashlib, os, sys, time
print("saw", hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest()[:8])
print("leaks", os.environ["TOKEN"])
print("leaks", os.environ["TOKEN"], file=sys.stderr)
time.sleep(0.3)
if sys.argv[1:] == ["fail"]:
    raise SystemExit(f"bad token {os.environ['TOKEN']}")
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/cmdline"), reason="process arguments are read from /proc")
def test_a_secret_is_nowhere_but_where_it_is_used(tmp_path: Path) -> None:
    """Three sources through experiments that print their secret and one that dies with it in its last words."""
    held = tmp_path / "held"
    held.mkdir()
    (held / "token").write_text(CANARIES["file"] + "\n")
    (held / "say").write_text(f"echo {CANARIES['command']}\n")
    references = {"env": "env:CANARY", "file": f"file:{held}/token", "command": f"'command:sh {held}/say'"}
    conf = {
        f"experiment/{name}": f"command: python ROOT/use.py {'fail' if name == 'env' else ''}\n"
        f"secrets: {{TOKEN: {reference}}}\n"
        for name, reference in references.items()
    }
    lab = TestLab.make(tmp_path / "lab", conf)
    lab.write("use.py", PROGRAM)
    secrets = list(CANARIES.values())
    watch = Watch(secrets)
    watch.start()
    env = {"CANARY": CANARIES["env"]}
    said = ""
    for words in (
        ("plan", "--json", "--out", str(tmp_path / "lab/plan.json")),
        ("apply", "--yes", "--json-events"),
        ("status",),
        ("show", "experiment.file"),
        ("logs", "experiment.env"),
        ("history",),
        ("plan",),
    ):
        ran = lab.run(*words, env=env)
        assert "Traceback" not in ran.err
        said += ran.out + ran.err
    watch.stop()
    assert watch.looks > 10
    assert not watch.seen
    assert not [s for s in secrets for form in forms(s) if form in said.encode()], said
    assert not leaks(tmp_path / "lab", secrets)
    logs = b"".join(p.read_bytes() for p in (tmp_path / "lab/state").rglob("*") if p.is_file())
    assert logs.count(b"saw ") >= 3  # the programs did run and did have their secret


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("conf/backup/b.yaml", "repo: ROOT/repo\npaths: [ROOT/conf]\npassword: {}\n"),
        ("conf/lab.yaml", "lab: {{name: t, id: 00000000-test, store: ROOT/store}}\nhub_token: {}\n"),
        ("conf/lab.yaml", "lab: {{name: t, id: 00000000-test, store: ROOT/store}}\nledger: postgresql://u:{}@h/db\n"),
    ],
)
def test_a_secret_written_out_is_refused_and_stays_nowhere(tmp_path: Path, file: str, text: str) -> None:
    """Where a reference was expected, or in a key that is none: no cache holds it, while it is there and after."""
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/out/a\ncontent: x\n"})
    sound = (tmp_path / "conf/lab.yaml").read_text()
    lab.write(file, text.format(CANARIES["env"]))
    long_ago = time.time() - 60
    os.utime(tmp_path / file, (long_ago, long_ago))
    time.sleep(0.1)  # a file that has just changed would not be cached at all
    for words in (("validate",), ("plan",), ("apply", "--yes")):
        ran = lab(*words)
        assert ran.code == 1
        assert CANARIES["env"] not in ran.out + ran.err
    assert not leaks(tmp_path, [CANARIES["env"]], but=(file,))
    (tmp_path / file).unlink()
    (tmp_path / "conf/lab.yaml").write_text(sound)
    assert lab("plan").code == 0
    assert not leaks(tmp_path, [CANARIES["env"]])
