"""The same lab on an empty machine: from its repository and a backup, and from a bundle with the network off.

Real git, restic, conda packages and supervised runs; another root, another home, another store. Proves DC-10.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.core.facts import digest
from tests.host.machines import NO_NET, Machine
from tests.host.test_backup_hard import site
from tests.postgres import serving

__all__ = ["site"]
pytestmark = pytest.mark.skipif(shutil.which("restic") is None, reason="needs restic")

REPO = Path(__file__).parents[2]
HEAD = """\
lab: {name: studio, id: 5d0a1b1c-0000-4a5e-9c57-0f6a3d1c8b42, store: "${oc.env:LAB_STORE}"}
resources: {backup: '*', file: '*', env: '*', model: '*', dataset: '*', experiment: '*'}
"""
CODE = """\
from pathlib import Path
def main(outputs: dict = {}, datasets: dict = {}):
    Path(outputs["words"]).write_text(str(len(Path(datasets["d"], "data.txt").read_text().split())))
    return {"score": 1.5}
"""


@pytest.fixture
def old(tmp_path: Path, site: str) -> Machine:
    """A machine with an applied lab in git, a finished run and a model that can be fetched again."""
    dice = random.Random(11)
    far = dice.randbytes(300_000)
    (tmp_path / "site/far.bin").write_bytes(far)
    machine = Machine(tmp_path / "old")
    (machine.at / "home/mine.bin").write_bytes(dice.randbytes(200_000))
    files = {
        "conf/lab.yaml": HEAD,
        "conf/file/motd.yaml": "path: ~/motd\ncontent: hello\n",
        "conf/file/rules.yaml": "path: ${lab.store}/RULES\ncontent: be kind\n",
        "conf/env/greet.yaml": "channels: [recipes/channel/demo]\nconda: [lab-greet]\n",
        "conf/model/far.yaml": f"url: {site}/far.bin\nsha256: {hashlib.sha256(far).hexdigest()}\nallow_pickle: true\n",
        "conf/model/mine.yaml": "path: ~/mine.bin\nplace: copy\nallow_pickle: true\n",
        "conf/dataset/d.yaml": "path: data.txt\n",
        "conf/experiment/e.yaml": "call: work:main\ndatasets: {d: d}\noutputs: {words: words.txt}\n",
        "conf/backup/nightly.yaml": f"repo: {tmp_path}/restic\npassword: env:LAB_PW\nlarge: 250kB\n"
        "include: [conf, state, models, datasets]\npaths: [~/mine.bin]\n",
        "work.py": CODE,
        "data.txt": "one two three\n",
        ".gitignore": "state/\n__pycache__/\n",
    }
    for name, text in files.items():
        path = machine.at / "lab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    done = machine.lab("-C", "lab", "lock", "env.greet")
    assert done.returncode == 0, done.stdout + done.stderr
    machine.git("init", "-q", "-b", "main")
    machine.git("add", "-A")
    machine.git("commit", "-qm", "x")
    done = machine.lab("-C", "lab", "apply", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No changes" in machine.lab("-C", "lab", "plan").stdout
    return machine


@pytest.fixture
def new(tmp_path: Path) -> Machine:
    """An empty machine."""
    return Machine(tmp_path / "new")


@pytest.fixture
def bundled(old: Machine) -> Path:
    """The old machine's lab as a folder, without wheels."""
    done = old.lab("-C", "lab", "bundle", "-o", "b", "--without", "wheels")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "models" in done.stderr, "sizes are shown"
    return old.at / "b"


def verdicts(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {r["address"]: r["verdict"] for r in json.loads(done.stdout)["resources"]}


def runs_tracked(machine: Machine) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(machine.at / "lab/state/mlflow/mlflow.db")) as db:
        return dict(db.execute("SELECT run_uuid, artifact_uri FROM runs"))


def same(old: Machine, new: Machine) -> None:
    """Nothing is left to do, all digests are equal, the run is there and history goes on."""
    plan = new.lab("-C", "lab", "plan")
    assert "No changes" in plan.stdout, plan
    assert new.lab("-C", "lab", "verify").returncode == 0
    runs = [json.loads(m.lab("-C", "lab", "runs", "--json").stdout) for m in (old, new)]
    assert [(r["id"], r["metrics"]) for r in runs[0]] == [(r["id"], r["metrics"]) for r in runs[1]]
    assert (new.at / "lab/state/outputs/e/words").read_text() == "3"
    assert (new.at / "home/motd").read_text() == "hello"
    assert "rebuild" in new.lab("-C", "lab", "history").stdout
    tracked = [runs_tracked(m) for m in (old, new)]
    assert tracked[0].keys() == tracked[1].keys()
    assert tracked[0], "MLflow's database has the same runs"
    assert all(str(new.at) in uri for uri in tracked[1].values()), "and leads to their artifacts here"
    mine = next((new.at / "store").glob("models/mine/original/*.bin"))
    assert mine.read_bytes() == (old.at / "home/mine.bin").read_bytes()
    assert not [
        p
        for p in (new.at / "lab/state").rglob("*.json")
        if str(old.at) in p.read_text() and "cache" not in p.parts and p.name != "rebuild.json"
    ]


def test_from_repository_locks_and_backup_alone_every_digest_is_equal(
    old: Machine, new: Machine, tmp_path: Path
) -> None:
    done = old.lab("-C", "lab", "backup", "now")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 large files by source and hash" in done.stdout
    (tmp_path / "bare").mkdir()
    old.git("clone", "-q", "--bare", ".", str(tmp_path / "bare/lab.git"))
    shutil.move(old.at, tmp_path / "gone")
    done = new.lab("rebuild", "--from", str(tmp_path / "bare/lab.git"), "--yes", "--json")
    shutil.move(tmp_path / "gone", old.at)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(verdicts(done).values()) == {"identical"}, done.stdout
    assert len(verdicts(done)) == 8
    same(old, new)
    again = new.lab("-C", "lab", "reproduce", "e", "--json")
    assert again.returncode == 0, again


@pytest.mark.root
def test_from_a_bundle_with_the_network_off_every_digest_is_equal(bundled: Path, old: Machine, new: Machine) -> None:
    off = subprocess.run([*NO_NET, "true"], capture_output=True)
    if off.returncode:
        pytest.skip("no network namespaces here")
    shutil.move(bundled, new.at / "b")
    shutil.move(old.at, old.at.with_name("gone"))
    done = new.lab("rebuild", "--from", "b", "--into", "lab", "--yes", "--json", net=False)
    shutil.move(old.at.with_name("gone"), old.at)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(verdicts(done).values()) == {"identical"}, done.stdout
    same(old, new)


def test_a_bundle_that_was_altered_or_cut_short_is_named_and_nothing_of_it_used(
    bundled: Path, old: Machine, new: Machine
) -> None:
    done = old.lab("-C", "lab", "bundle", "-o", "b.tar", "--without", "wheels")
    assert done.returncode == 0, done.stdout + done.stderr
    whole = (old.at / "b.tar").read_bytes()
    blob = next(p for p in bundled.glob("store/default/blobs/sha256/*/*") if p.stat().st_size > 200_000)
    data = bytearray(blob.read_bytes())
    data[1000] ^= 1
    kept = blob.read_bytes()
    for spoilt, word in ((bytes(data), "was altered"), (kept[:-7], "was cut short"), (None, "is not there")):
        blob.unlink()
        if spoilt is not None:
            blob.write_bytes(spoilt)
        else:
            (blob.parent / "other").write_bytes(kept)
        done = new.lab("rebuild", "--from", str(bundled), "--into", "lab", "--yes")
        assert done.returncode == 1
        assert blob.name in done.stderr
        assert word in done.stderr
        assert [p.name for p in (new.at / "lab").iterdir()] == [".git"], "nothing was made"
        if spoilt is None:
            blob.write_bytes(kept)
    at = whole.index(data[:64] if data[:64] in whole else kept[:64])
    tampered = bytearray(whole)
    tampered[at + 100] ^= 1
    for spoilt, word in ((bytes(tampered), "was altered"), (whole[: len(whole) // 2], "was cut short")):
        (old.at / "b.tar").write_bytes(spoilt)
        done = new.lab("rebuild", "--from", str(old.at / "b.tar"), "--into", "lab2", "--yes")
        assert done.returncode == 1
        assert word in done.stderr
    (old.at / "b.tar").write_bytes(whole)
    manifest = bundled / "bundle.json"
    kept_manifest = manifest.read_text()
    manifest.write_text(kept_manifest.replace('"host"', '"hast"'))
    done = new.lab("rebuild", "--from", str(bundled), "--into", "lab3", "--yes")
    assert "bundle.json was altered" in done.stderr
    for key, value in (("links", {"store/default/../../../mine": "x"}), ("inside", "../..")):
        told = {k: v for k, v in json.loads(kept_manifest).items() if k != "sum"} | {key: value}
        manifest.write_text(json.dumps({**told, "sum": digest(told)}))
        done = new.lab("rebuild", "--from", str(bundled), "--into", "lab3", "--yes")
        assert "a name in it leads out of it" in done.stderr
        assert not (new.at / "lab3").exists()
    done = new.lab("rebuild", "--from", str(old.at / "b.tar"), "--into", "lab2", "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(verdicts(done).values()) == {"identical"}
    assert old.lab("-C", "lab", "bundle", "-o", "later.tar", "--without", "wheels").returncode == 0
    os.replace(old.at / "later.tar", old.at / "b.tar")
    done = new.lab("rebuild", "--from", str(old.at / "b.tar"), "--into", "lab2", "--yes")
    assert "is another bundle" in done.stderr


def test_what_stands_in_the_way_is_told_and_nothing_is_touched(old: Machine, new: Machine, tmp_path: Path) -> None:
    source = str(old.at / "lab")

    def refused(*words: str, env: dict[str, str] | None = None) -> str:
        done = new.lab("rebuild", "--from", source, "--into", "lab", "--yes", *words, env=env)
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "there is no snapshot yet" in refused()
    assert old.lab("-C", "lab", "backup", "now").returncode == 0
    assert "the password does not open" in refused(env={"LAB_PW": "wrong"})
    assert "there is no repository" in refused("--repo", str(tmp_path / "nowhere"))
    assert "no backup `nightli` is declared — did you mean `nightly`?" in refused("--backup", "nightli")
    assert "is being rebuilt from" in new.lab("rebuild", "--from", str(REPO), "--into", "lab", "--yes").stderr
    (new.at / "full").mkdir()
    (new.at / "full/thesis.txt").write_text("mine")
    done = new.lab("rebuild", "--from", source, "--into", "full", "--yes")
    assert "is not empty" in done.stderr
    assert [p.name for p in (new.at / "full").iterdir()] == ["thesis.txt"]
    (new.at / "none").mkdir()
    words = ("rebuild", "--from", str(new.at / "none"), "--into", "failed", "--yes")
    assert "cannot be cloned" in new.lab(*words).stderr
    (new.at / "failed/thesis.txt").write_text("mine")
    assert "holds thesis.txt" in new.lab(*words).stderr
    assert (new.at / "failed/thesis.txt").read_text() == "mine"
    assert "there is no repository nowhere" in new.lab("rebuild", "--from", "nowhere", "--yes").stderr
    old.git("rm", "-q", "conf/lock/env/greet.yaml", "conf/lock/env/greet.conda-lock.yml")
    old.git("commit", "-qm", "no lock")
    done = new.lab("rebuild", "--from", source, "--into", "unlocked", "--yes")
    assert "env.greet has no lock" in done.stderr
    assert "conf/env/greet.yaml" in done.stderr
    (old.at / "lab/conf/file/dirty.yaml").write_text("path: ~/x\ncontent: x\n")
    assert "uncommitted changes" in old.lab("-C", "lab", "bundle", "-o", "b").stderr
    assert not (old.at / "b").exists()


def test_what_cannot_be_the_same_is_attested_with_its_reason(old: Machine, new: Machine, tmp_path: Path) -> None:
    old.lab("-C", "lab", "backup", "now")
    (tmp_path / "site/far.bin").unlink()
    (old.at / "lab/conf/file/rules.yaml").write_text("path: ${lab.store}/RULES\ncontent: be kinder\n")
    old.git("commit", "-qam", "y")
    done = new.lab("rebuild", "--from", str(old.at / "lab"), "--into", "lab", "--yes", "--json")
    assert done.returncode == 1, done
    found = verdicts(done)
    assert found.pop("model.far") == "missing"
    assert found.pop("file.rules") == "differs"
    assert set(found.values()) == {"identical"}
    report = json.loads((new.at / "lab/state/rebuild.json").read_text())
    assert not report["equal"]
    why = {r["address"]: r.get("why", "") for r in report["resources"]}
    assert "404" in why["model.far"] or "cannot be" in why["model.far"] or "not there" in why["model.far"]


@pytest.mark.root
def test_a_bundle_appears_whole_or_not_at_all(old: Machine, tmp_path: Path) -> None:
    """A volume without room is told before anything is written; a kill leaves nothing under the bundle's name."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("no mount here")
    try:
        done = old.lab("-C", "lab", "bundle", "-o", str(small / "b"), "--without", "wheels")
        assert done.returncode == 1
        assert "do not fit" in done.stderr
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    target = old.at / "b.tar"
    command = [sys.executable, "-m", "lab", "-C", "lab", "bundle", "-o", "b.tar", "--extras", "none"]
    process = subprocess.Popen(command, cwd=old.at, env=old.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not target.with_name("b.tar.part").exists():
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not target.exists() or process.returncode == 0
    target.unlink(missing_ok=True)
    assert old.lab("-C", "lab", "bundle", "-o", "b.tar", "--extras", "none").returncode == 0
    assert sorted(p.name for p in old.at.iterdir()) == ["b.tar", "home", "lab", "store"]
    assert "is there already" in old.lab("-C", "lab", "bundle", "-o", "b.tar").stderr


@pytest.mark.slow
def test_killed_anywhere_the_same_command_goes_on_and_all_is_equal(bundled: Path, old: Machine, new: Machine) -> None:
    dice = random.Random(3)
    command = [sys.executable, "-m", "lab", "rebuild", "--from", str(bundled), "--into", "lab", "--yes", "-q"]

    def struck(after: float | None) -> bool:
        """Whether the rebuild was killed before it had ended; one that ended makes room for another."""
        process = subprocess.Popen(command, cwd=new.at, env=new.env, start_new_session=True, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == 0:
            shutil.rmtree(new.at / "lab")
            shutil.rmtree(new.at / "store")
            (new.at / "home/motd").unlink()
        return process.returncode == -signal.SIGKILL

    began = time.monotonic()
    assert not struck(None)
    whole = time.monotonic() - began
    killed = sum(struck(dice.uniform(0.05, 0.9) * whole) for _ in range(40))
    assert killed >= 20
    done = new.lab("rebuild", "--from", str(bundled), "--into", "lab", "--yes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(verdicts(done).values()) == {"identical"}, done.stdout
    same(old, new)
    assert not list(new.at.rglob("*.lab-tmp"))


def test_killed_before_it_was_noted_that_the_state_is_taken_it_is_taken_again(
    bundled: Path, old: Machine, new: Machine
) -> None:
    """The stamps of the first try tell of a ledger that had come further than the one which is put back."""
    command = ("rebuild", "--from", str(bundled), "--into", "lab", "--yes", "--json")
    assert new.lab(*command).returncode == 0
    mark = new.at / "lab/.git/lab-rebuild.json"
    noted = json.loads(mark.read_text())
    noted["done"].remove("state")
    mark.write_text(json.dumps(noted))
    done = new.lab(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(verdicts(done).values()) == {"identical"}, done.stdout
    same(old, new)


@pytest.mark.slow
@pytest.mark.root
def test_on_a_bare_python_without_a_network_the_bundle_brings_lab_itself(old: Machine, new: Machine) -> None:
    """Only Python, git and the bundle: Lab and what it needs is installed from the bundle's own wheels."""
    if subprocess.run([*NO_NET, "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    (old.at / "lab/conf/env/words.yaml").write_text("python: host\npip: [tabulate==0.9.0]\n")
    assert old.lab("-C", "lab", "lock", "env.words").returncode == 0
    old.git("add", "-A")
    old.git("commit", "-qm", "a pip env")
    assert old.lab("-C", "lab", "apply", "--yes").returncode == 0
    done = old.lab("-C", "lab", "bundle", "-o", str(new.at / "b"), "--extras", "envs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((new.at / "b/archives").glob("*/*/tabulate-*.whl"))
    bare = {k: v for k, v in new.env.items() if k != "PYTHONPATH"}
    for command in (
        [sys.executable, "-m", "venv", "v"],
        [*NO_NET, "v/bin/pip", "install", "-q", "--no-index", "--find-links", "b/wheels", "llm-lab[envs]"],
        [*NO_NET, "v/bin/lab", "rebuild", "--from", "b", "--into", "lab", "--yes", "--json"],
    ):
        ran = subprocess.run(command, cwd=new.at, env=bare, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert ran.returncode == 0, ran
    assert set(verdicts(ran).values()) == {"identical"}, ran.stdout
    same(old, new)


@pytest.mark.slow
def test_a_ledger_on_a_server_is_in_the_backup_and_comes_back_on_another_server(new: Machine, tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    old = Machine(tmp_path / "old")
    (old.at / "lab/conf/backup").mkdir(parents=True)
    head = "lab: {name: s, id: 5d0a1b1c-pg, store: '${oc.env:LAB_STORE}', ledger: '${oc.env:LAB_PG}'}\n"
    (old.at / "lab/conf/lab.yaml").write_text(head + "resources: {backup: '*', file: '*'}\n")
    (old.at / "lab/conf/backup/b.yaml").write_text(f"repo: {tmp_path}/restic\npassword: env:LAB_PW\n")
    (old.at / "lab/conf/file").mkdir()
    (old.at / "lab/conf/file/motd.yaml").write_text("path: ~/motd\ncontent: hello\n")
    (old.at / "lab/.gitignore").write_text("state/\n")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "x")):
        old.git(*words)
    with serving() as first, serving() as second:
        old.env["LAB_PG"], new.env["LAB_PG"] = first.url, second.url
        for command in (("apply", "--yes"), ("backup", "now")):
            done = old.lab("-C", "lab", *command)
            assert done.returncode == 0, done.stdout + done.stderr
        first.stop()
        done = new.lab("rebuild", "--from", str(old.at / "lab"), "--yes", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert verdicts(done) == {"backup.b": "identical", "file.motd": "identical"}
        assert len(new.lab("-C", "lab", "history").stdout.splitlines()) >= 2, "history goes on"
        assert not (new.at / "lab/state/ledger.sqlite").exists()
        first.start()
