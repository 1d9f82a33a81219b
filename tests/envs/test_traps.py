"""Each trap of the tools underneath is caught: the crash at exit, unchecked archives, poisoning, the silent no-op."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest

from lab.adapters import conda, envlock, envs
from lab.adapters.channel import package
from lab.core.problem import Problems
from lab.core.steps_envs import LockEnv
from tests.envs.stands import Stage, made, module, site, spec, step_for


def test_no_crash_at_exit_is_ever_seen(tmp_path: Path, built: Path) -> None:
    """Eight short processes that solve all end with status 0; without the guard four in ten crash."""
    part = {"specs": ["labdata"], "virtual": {}}
    request = {"do": "solve", "channels": [built.as_uri()], "cache": str(tmp_path), "platforms": {"linux-64": part}}
    ended = [
        subprocess.run(
            [sys.executable, "-m", "lab.adapters.conda_child"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
        )
        for _ in range(8)
    ]
    assert [e.returncode for e in ended] == [0] * 8
    assert all('"name": "labdata"' in e.stdout for e in ended)


def test_an_archive_that_is_not_the_locked_one_is_refused(tmp_path: Path, built: Path) -> None:
    """rattler does not check `file://` archives; a replaced one is a problem, and nothing is half-installed."""
    mine = tmp_path / "channel"
    shutil.copytree(built, mine)
    stage = Stage(tmp_path)
    envlock.lock(LockEnv("one", spec(mine, "labhello ==1.1.0")), stage)
    package(mine, "labhello", "1.1.0", noarch="python", files=module("labhello", "1.1.0", "evil = True"))
    with pytest.raises(Problems, match="archive of labhello is not the one that was locked"):
        envs.install(step_for(tmp_path), stage)
    link = Path(step_for(tmp_path).link)
    assert not os.path.lexists(link)
    assert not any(p.is_dir() for p in (link.parent / ".made" / "one").iterdir())


def test_a_package_gone_from_its_channel_is_a_problem(tmp_path: Path, built: Path) -> None:
    """A locked package that the channel no longer has is named."""
    mine = tmp_path / "channel"
    shutil.copytree(built, mine)
    stage = Stage(tmp_path)
    envlock.lock(LockEnv("one", spec(mine, "labhello ==1.1.0")), stage)
    next(mine.glob("noarch/labhello-1.1.0*")).unlink()
    with pytest.raises(Problems, match="labhello is gone from its channel"):
        envs.install(step_for(tmp_path), stage)


def test_an_edit_through_a_hardlink_is_seen_and_spreads_no_further(tmp_path: Path, built: Path) -> None:
    """An in-place edit poisons the cache and another env: both say so and are repaired, a third is clean."""
    stage, one = made(tmp_path, built, "labhello ==1.1.0", name="one")
    _, two = made(tmp_path, built, "labhello ==1.1.0", name="two")
    clean = envs.observe(two.link)["content_digest"]
    with site(one, "labhello", "__init__.py").open("a") as f:
        f.write("evil = True\n")
    for step in (one, two):
        seen = envs.observe(step.link, 1)
        assert seen["state"] == "1 edited"
        assert "shared with other envs by a hardlink" in next(iter(seen["files"].values()))
    _, three = made(tmp_path, built, "labhello ==1.1.0", name="three")
    assert "evil" not in site(three, "labhello", "__init__.py").read_text()
    for step in (one, two):
        envs.install(step, stage)
    for step in (one, two, three):
        seen = envs.observe(step.link, 2)
        assert (seen["state"], seen["content_digest"]) == ("intact", clean)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_repair_writes_through_no_link(tmp_path: Path, built: Path, link: Callable[[Path, Path], None]) -> None:
    """rattler writes an entry point where it lies: where it was made a link and its record is gone, in another file."""
    stage, step = made(tmp_path, built, "labhello ==1.1.0")
    other, entry = tmp_path / "other", Path(step.link, "bin", "labhello")
    other.write_text("not of this env\n")
    entry.unlink()
    link(other, entry)
    next(Path(step.link, "conda-meta").glob("labhello-*.json")).unlink()
    assert envs.observe(step.link, 1)["state"] == "1 deleted, 1 edited"
    envs.install(step, stage)
    assert envs.observe(step.link, 2)["state"] == "intact"
    assert other.read_text() == "not of this env\n"


def test_a_repair_that_brings_back_the_damage_is_none(
    tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the cache keeps its poisoned copy, nothing is said to be repaired, and the env to be damaged as before."""
    stage, step = made(tmp_path, built, "labhello ==1.1.0")
    with site(step, "labhello", "__init__.py").open("a") as f:
        f.write("evil = True\n")
    monkeypatch.setattr(conda, "evict", lambda cache, packages: None)
    with pytest.raises(Problems, match="cannot be installed as locked"):
        envs.install(step, stage)
    assert envs.observe(step.link, 2)["state"] == "1 edited"
    monkeypatch.undo()
    envs.install(step, stage)
    assert envs.observe(step.link, 2)["state"] == "intact"


def test_rattler_repairs_nothing_by_itself(tmp_path: Path, built: Path) -> None:
    """The control of the repair tests: installing again over a drifted prefix silently leaves it as it is."""
    stage, step = made(tmp_path, built, "labhello ==1.1.0")
    victim = site(step, "labhello", "__init__.py")
    victim.unlink()
    with envlock.expanded(envlock.locks(stage) / "one.conda-lock.yml", stage) as lockfile:
        request = {"lockfile": str(lockfile), "platform": "linux-64", "prefix": os.path.realpath(step.link)}
        conda.ask("install", {**request, "cache": str(envlock.cache(stage)), "offline": True})
    assert not victim.exists()
    envs.install(step, stage)
    assert victim.exists()


def test_a_corrupt_cache_is_noticed(tmp_path: Path, built: Path) -> None:
    """A damaged unpacked package in the cache is never installed from."""
    stage, _ = made(tmp_path, built, "labhello ==1.1.0", name="one")
    cached = next((envlock.cache(stage) / "pkgs").glob("labhello-1.1.0*/site-packages/labhello/__init__.py"))
    text = cached.read_text()
    cached.unlink()
    cached.write_text(text.replace("1.1.0", "9.9.9"))
    _, two = made(tmp_path, built, "labhello ==1.1.0", name="two")
    assert "9.9.9" not in site(two, "labhello", "__init__.py").read_text()
    assert envs.observe(two.link, 2)["state"] == "intact"


def serving(folder: Path, asked: list[str] | None = None) -> ThreadingHTTPServer:
    """A server of a folder; what it is asked for is noted."""

    class Noting(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            if asked is not None:
                asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Noting, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_offline_no_other_machine_is_asked(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is locked and not in the cache comes from loopback or not at all, and the problem says why."""
    asked: list[str] = []
    server = serving(built, asked)
    url = f"http://127.0.0.1:{server.server_port}"
    stage = Stage(tmp_path)
    envlock.lock(LockEnv("one", spec(url, "labhello ==1.1.0")), stage)
    lockfile = envlock.locks(stage) / "one.conda-lock.yml"
    text = lockfile.read_text()
    lockfile.write_text(text.replace(url, "http://channel.example"))
    monkeypatch.setenv("HTTP_PROXY", url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    stage.offline = True
    asked.clear()
    with pytest.raises(Problems, match="not here, and the lab is offline") as e:
        envs.install(step_for(tmp_path), stage)
    assert "channel.example is not asked" in str(e.value)
    assert asked == []
    assert not os.path.lexists(step_for(tmp_path).link)
    lockfile.write_text(text)
    envs.install(step_for(tmp_path), stage)
    server.shutdown()
    server.server_close()


def test_offline_from_the_cache(tmp_path: Path, built: Path) -> None:
    """What was installed once from a server is installed again, in another env, with the server gone."""
    server = serving(built)
    url = f"http://127.0.0.1:{server.server_port}"
    stage, one = made(tmp_path, url, "labhello ==1.1.0")
    envlock.lock(LockEnv("two", spec(url, "labhello ==1.1.0")), stage)
    envlock.lock(LockEnv("three", spec(url, "labhello ==2.0.0")), stage)
    server.shutdown()
    server.server_close()
    stage.offline = True
    envs.install(step_for(tmp_path, "two"), stage)
    same = [envs.observe(s.link, 2)["content_digest"] for s in (one, step_for(tmp_path, "two"))]
    assert same[0] == same[1]
    with pytest.raises(Problems):
        envs.install(step_for(tmp_path, "three"), stage)
    assert not os.path.lexists(step_for(tmp_path, "three").link)


def test_the_channel_builder_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two builds of a described channel are equal to the byte."""
    from lab.adapters.channel import build, shipped

    source = shipped("recipes/channel/demo")
    assert source is not None
    a, b = (build(source, tmp_path / x) for x in "ab")
    files = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
    assert [(a / f).read_bytes() for f in files] == [(b / f).read_bytes() for f in files]
    assert len([f for f in files if f.suffix == ".bz2"]) == 3


ORPHAN = """
import os, sys
from lab.adapters import conda
made = conda.Child(dict(os.environ))
print(made._process.pid, flush=True)
part = {"specs": ["x"], "virtual": {}}
made.ask({"do": "solve", "channels": [sys.argv[1]], "cache": sys.argv[2], "platforms": {"linux-64": part}})
"""


def living(process: psutil.Process) -> bool:
    """Whether it still runs."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_rattler_does_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    """Killed in the middle of a deed, a command leaves nobody behind who goes on with it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        asking = subprocess.Popen([sys.executable, "-c", ORPHAN, url, tmp_path], stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})  # fmt: skip
        assert asking.stdout is not None
        with asking.stdout as said:
            child = psutil.Process(int(said.readline()))
        silent.accept()
        asking.kill()
        asking.wait()
        ends = time.monotonic() + 20
        while living(child) and time.monotonic() < ends:
            time.sleep(0.05)
        assert not living(child)
