"""An env is installed, watched and repaired with the real tools, from a local channel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.adapters import closed, envlock, envs, prefix
from lab.adapters.closed import run
from lab.core.problem import Problems
from lab.core.steps_envs import LockEnv, RemoveEnv
from tests.envs.stands import SHORT, Stage, lock, made, site, spec, step_for


def test_locked_installed_tampered_repaired_removed(tmp_path: Path, built: Path) -> None:
    """S0-US-001-1: what is locked is installed; drift is named by file and package, and exactly that is repaired."""
    stage, step = made(tmp_path, built, "labhello ==1.1.0", "labprefix")
    for depth in (0, 1, 2):
        assert envs.observe(step.link, depth)["state"] == "intact"
    done = run(step.link, ["labhello"])
    assert done.text.startswith("labhello 1.1.0"), done.text
    before = envs.observe(step.link)
    untouched = {r: s.st_ino for r, s in prefix.walk(before["prefix"]) if "labprefix" in r}
    victim = site(step, "labhello", "__init__.py")
    victim.write_text("print('evil')\n")
    (victim.parent / "foreign.py").write_text("")
    Path(step.link, "share/labdata/a.txt").unlink()
    seen = envs.observe(step.link, 1)
    assert seen["state"] == "1 deleted, 1 edited, 1 foreign"
    rel = f"lib/python{SHORT}/site-packages/labhello"
    assert "conda:labhello 1.1.0" in seen["files"][f"{rel}/__init__.py"]
    assert seen["files"]["share/labdata/a.txt"] == "deleted (conda:labdata 1.0)"
    envs.install(step, stage)
    assert envs.observe(step.link, 2) == before
    assert {r: s.st_ino for r, s in prefix.walk(before["prefix"]) if "labprefix" in r} == untouched
    envs.remove(RemoveEnv("one", step.link), stage)
    envs.remove(RemoveEnv("one", step.link), stage)
    assert not (tmp_path / "state" / "envs").exists()


@pytest.mark.parametrize(
    "how",
    [
        "edit",
        "edit keeping size and time",
        "delete",
        "foreign package",
        "mode",
        "link",
        "record",
        "no record",
    ],
)
def test_any_tampering_is_named_and_repaired(tmp_path: Path, built: Path, how: str) -> None:
    """Each way to tamper with a file is named at the depth that can see it, and apply brings back the same env."""
    stage, step = made(tmp_path, built, "labhello ==1.1.0", "labprefix")
    before = envs.observe(step.link)
    victim, depth = site(step, "labhello", "__init__.py"), 1
    if how == "edit":
        victim.write_text("x = 1\n")
    elif how == "edit keeping size and time":
        s = victim.stat()
        victim.write_bytes(b"#" * s.st_size)
        os.utime(victim, ns=(s.st_atime_ns, s.st_mtime_ns))
        depth = 2
    elif how == "delete":
        victim.unlink()
        depth = 0
    elif how == "foreign package":
        folder = site(step, "sneaky")
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (site(step, "sneaky-1.0.dist-info")).mkdir()
        site(step, "sneaky-1.0.dist-info", "METADATA").write_text("Name: sneaky\n")
        depth = 0
    elif how == "mode":
        os.chmod(Path(step.link, "bin", "labprefix"), 0o644)
    elif how == "link":
        victim.unlink()
        victim.symlink_to("/etc/hostname")
    else:
        record = next(Path(step.link, "conda-meta").glob("labhello-*.json"))
        record.write_text("garbage" if how == "no record" else record.read_text().replace("1.1.0", "6.6.6"))
    seen = envs.observe(step.link, depth)
    assert seen["state"] != "intact"
    assert envs.observe(step.link)["state"] == seen["state"], "the next plan does not know what was found"
    word = {"foreign package": "sneaky", "mode": "labprefix"}.get(how, "labhello")
    assert any(word in rel + what for rel, what in seen["files"].items()), seen["files"]
    envs.install(step, stage)
    assert envs.observe(step.link)["state"] == "intact"
    after = envs.observe(step.link, 2)
    assert after["state"] == "intact"
    assert after["content_digest"] == before["content_digest"]


def test_a_lock_that_is_not_the_planned_one_installs_nothing(tmp_path: Path, built: Path) -> None:
    """Without this platform, or changed after the plan: a problem that says so, and never an empty env."""
    stage = Stage(tmp_path)
    lock(stage, "one", spec(built, "labdata", platforms=["osx-arm64"]))
    with pytest.raises(Problems, match="has nothing for linux-64") as e:
        envs.install(step_for(tmp_path), stage)
    assert e.value.problems[0].why == "it holds osx-arm64"
    lock(stage, "one", spec(built, "labdata"))
    with pytest.raises(Problems, match="changed after the plan"):
        envs.install(step_for(tmp_path, lock="another"), stage)
    assert not os.path.lexists(step_for(tmp_path).link)


@pytest.mark.parametrize("name", ["files.json", "dirs.json"])
def test_what_is_kept_of_an_env_is_damaged(tmp_path: Path, built: Path, name: str) -> None:
    """Half, noise or nothing of it: seen, and the same env is made anew."""
    stage, step = made(tmp_path, built, "labhello ==1.1.0")
    before = envs.observe(step.link)
    whole = Path(step.link, ".lab", name).read_bytes()
    for said in (whole[: len(whole) // 2], b"\xd7[", b"", b"[]"):
        Path(step.link, ".lab", name).write_bytes(said)
        assert envs.observe(step.link, 1)["state"] == "1 deleted"
        envs.install(step, stage)
        after = envs.observe(step.link, 2)
        assert after["state"] == "intact"
        assert after["content_digest"] == before["content_digest"]


def test_equal_in_every_prefix_and_home(tmp_path: Path, built: Path) -> None:
    """S0-US-001-3: locks and contents have the same digests in two labs in different places."""
    seen, texts = [], []
    for home in ("a", "somewhere/else/b"):
        root = tmp_path / home
        shutil.copytree(built, root / "channel")
        _, step = made(root, "./channel", "labhello ==1.1.0", "labprefix")
        facts = envs.observe(step.link, 2)
        seen.append((facts["lock"], facts["content_digest"], facts["state"]))
        texts.append((root / "conf/lock/env/one.conda-lock.yml").read_text())
    assert seen[0] == seen[1]
    assert texts[0] == texts[1]


def test_contradicting_envs_live_side_by_side(tmp_path: Path, built: Path) -> None:
    """S0-US-001-2: each env prints its own version; a decoy on the caller's paths is importable in neither."""
    decoy = tmp_path / "decoy" / "lib" / f"python{SHORT}" / "site-packages"
    decoy.mkdir(parents=True)
    (decoy / "decoy.py").write_text("")
    spoiled = {"PYTHONPATH": str(decoy), "PYTHONUSERBASE": str(tmp_path / "decoy"), "PYTHONHOME": "/nowhere"}
    before = dict(os.environ)
    steps = [made(tmp_path, built, f"labhello =={v}", name=f"e{v[0]}{v[2]}")[1] for v in ("1.0.0", "1.1.0", "2.0.0")]
    os.environ.update(spoiled)
    try:
        said = [run(s.link, ["labhello"]).text.split()[1] for s in steps]
        found = [run(s.link, ["python", "-c", "import decoy"]) for s in steps]
        paths = [run(s.link, ["python", "-c", "import sys; print(*sys.path, sep='\\n')"]).text for s in steps]
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert said == ["1.0.0", "1.1.0", "2.0.0"]
    assert all(d.returncode == 1 and "No module named 'decoy'" in d.text for d in found)
    for step, text in zip(steps, paths, strict=True):
        sites = [p for p in text.split() if p.endswith("-packages")]
        assert sites == [f"{os.path.realpath(step.link)}/lib/python{SHORT}/site-packages"]
    assert "PYTHONPATH" not in closed.environment(steps[0].link)


def test_the_users_own_packages_stay_out(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that is no venv, as conda's is, does not look into the home it is given; elsewhere it does."""
    _, step = made(tmp_path, built, "labhello ==1.1.0")
    whole, decoy = os.path.realpath(Path(step.link, "bin", "python")), ["-c", "import decoy"]
    own = tmp_path / "home" / ".local" / "lib" / f"python{SHORT}" / "site-packages"
    own.mkdir(parents=True)
    (own / "decoy.py").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert subprocess.run([whole, *decoy]).returncode == 0
    assert "No module named 'decoy'" in run(step.link, [whole, *decoy]).text


def test_a_failing_smoke_test_keeps_the_old_env(tmp_path: Path, built: Path) -> None:
    """A new env that fails its smoke test is never switched to."""
    stage, step = made(tmp_path, built, "labhello ==1.0.0")
    old = os.path.realpath(step.link)
    envlock.lock(LockEnv("one", spec(built, "labhello ==1.1.0")), stage)
    with pytest.raises(Problems, match="smoke test") as e:
        envs.install(step_for(tmp_path, commands=("echo broken; exit 3",)), stage)
    assert "broken" in e.value.problems[0].why
    assert os.path.realpath(step.link) == old
    assert envs.observe(step.link, 2)["state"] == "intact"
    assert sum(1 for p in Path(old).parent.iterdir() if p.is_dir()) == 1


def test_running_processes_keep_their_env(tmp_path: Path, built: Path) -> None:
    """A prefix stays until the second replacement, and longer while something holds its lease: it is not destroyed."""
    stage, step = made(tmp_path, built, "labhello ==1.0.0")
    first = Path(os.path.realpath(step.link))
    with (first / prefix.OURS / "lease").open() as lease:
        import fcntl

        fcntl.flock(lease, fcntl.LOCK_SH)
        with pytest.raises(Problems, match="is in use"):
            envs.remove(RemoveEnv("one", step.link), stage)
        for version in ("1.1.0", "2.0.0"):
            envlock.lock(LockEnv("one", spec(built, f"labhello =={version}")), stage)
            envs.install(step, stage)
        assert (first / "bin" / "python").exists()
    envlock.lock(LockEnv("one", spec(built, "labhello ==1.0.0")), stage)
    envs.install(step, stage)
    assert not first.exists()


def test_installs_at_once_are_safe(tmp_path: Path, built: Path) -> None:
    """Four envs installed at the same time from one cold cache, one thrice, are all intact, and share their files."""
    stage = Stage(tmp_path)
    steps = []
    for n in range(4):
        envlock.lock(LockEnv(f"e{n}", spec(built, "labhello ==1.1.0", "labprefix")), stage)
        steps.append(step_for(tmp_path, f"e{n}"))
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda s: envs.install(s, stage), [steps[0], steps[0], *steps]))
    assert [envs.observe(s.link, 2)["state"] for s in steps] == ["intact"] * 4
    assert len({site(s, "labhello", "__init__.py").stat().st_ino for s in steps}) == 1


@pytest.mark.slow
def test_a_kill_leaves_the_old_env_or_the_new_one(tmp_path: Path, built: Path) -> None:
    """Killed at 20 moments, an install leaves the old env or the new one whole, and the next one finishes."""
    stage, step = made(tmp_path, built, "labhello ==1.0.0", "labprefix")
    versions = ("1.1.0", "1.0.0")
    begun = time.monotonic()
    script = (
        "import sys; from pathlib import Path; from lab.adapters import envs;"
        "from tests.envs.stands import Stage, step_for;"
        "root = Path(sys.argv[1]); print('go', flush=True); envs.install(step_for(root), Stage(root)); print('done')"
    )
    lengths = []
    for n in range(21):
        version = versions[n % 2]
        envlock.lock(LockEnv("one", spec(built, f"labhello =={version}", "labprefix")), stage)
        before = envs.observe(step.link)["lock"]
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        if n:
            time.sleep(max(lengths) * n / 20)
            process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        lengths.append(time.monotonic() - started) if not n else None
        seen = envs.observe(step.link, 2)
        assert seen["state"] == "intact", (n, seen)
        said = run(step.link, ["labhello"]).text.split()[1]
        assert (said == version) is (seen["lock"] != before), (n, said, version)
        envs.install(step, stage)
        assert run(step.link, ["labhello"]).text.split()[1] == version
        assert sum(1 for p in Path(os.path.realpath(step.link)).parent.iterdir() if p.is_dir()) <= 2
    assert time.monotonic() - begun < 300
