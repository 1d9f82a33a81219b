"""Heavy work in a child: its crash, its memory and its end are its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.adapters import child
from lab.core.problem import Problems, problem
from lab.core.step import Cancelled


def add(args: Any, progress: child.Progress) -> Any:
    print("noise on standard output")
    progress(1, 2, "things")
    return {"sum": args["a"] + args["b"]}


def crash(args: Any, progress: child.Progress) -> Any:
    print("about to fall", file=sys.stderr)
    os.kill(os.getpid(), 11)


def refuse(args: Any, progress: child.Progress) -> Any:
    raise problem("no", why="because", do="something else")


def hold(args: Any, progress: child.Progress) -> Any:
    Path(args["note"]).write_text(str(os.getpid()))
    progress(0)
    time.sleep(60)


def eat(args: Any, progress: child.Progress) -> Any:
    return {"n": len(bytearray(os.urandom(1)) * 120_000_000)}


class Watch:
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.stop = False

    def progress(self, *args: Any) -> None:
        self.seen.append(args)

    def say(self, text: str) -> None: ...

    def check(self) -> None:
        if self.stop:
            raise Cancelled


def _run(name: str, tmp_path: Path, watch: Watch | None = None, **args: Any) -> dict[str, Any]:
    return child.run(f"tests.engines.test_child:{name}", args, log=tmp_path / "log", watch=watch, what="the work")


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


def test_it_answers_and_tells_its_progress_and_noise_goes_to_the_log(tmp_path: Path) -> None:
    watch = Watch()
    found = _run("add", tmp_path, watch, a=1, b=2)
    assert found["sum"] == 3
    assert watch.seen == [(1, 2, "things")]
    assert "noise" in (tmp_path / "log").read_text()


def test_a_crash_is_a_problem_that_names_the_signal_and_the_last_words(tmp_path: Path) -> None:
    with pytest.raises(Problems, match="SIGSEGV") as e:
        _run("crash", tmp_path)
    assert "about to fall" in str(e.value)


def test_a_child_that_ended_before_it_was_asked_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = subprocess.Popen

    def killed(*args: Any, **more: Any) -> Any:
        process = started(*args, **more)
        process.kill()
        process.wait()
        return process

    monkeypatch.setattr(subprocess, "Popen", killed)
    with pytest.raises(Problems, match="the work did not finish") as e:
        _run("add", tmp_path, a=1, b=2)
    assert "SIGKILL" in str(e.value)


def test_its_problem_is_ours(tmp_path: Path) -> None:
    with pytest.raises(Problems) as e:
        _run("refuse", tmp_path)
    assert (e.value.problems[0].summary, e.value.problems[0].do) == ("no", "something else")


def test_its_memory_is_measured_apart_from_ours(tmp_path: Path) -> None:
    mine = bytearray(300_000_000)
    mine[::4096] = b"x" * len(mine[::4096])
    assert _run("add", tmp_path, a=1, b=2)["memory"] < 100_000_000
    assert _run("eat", tmp_path)["memory"] > 120_000_000


def test_when_asked_to_stop_nothing_is_left_running(tmp_path: Path) -> None:
    watch = Watch()
    watch.progress = lambda *a: setattr(watch, "stop", True)  # type: ignore[method-assign]
    with pytest.raises(Cancelled):
        _run("hold", tmp_path, watch, note=str(tmp_path / "pid"))
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_what_a_program_prints_beside_its_messages_is_passed_over() -> None:
    read, write = os.pipe()
    os.write(write, b'loading...\n[1]\n"x"\n\xff\n{"facts": {}}\n{"progress"')
    os.close(write)
    with open(read, "rb") as pipe:
        assert list(child.messages(pipe, None)) == [{"facts": {}}]


def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "from pathlib import Path\nfrom lab.adapters import child\n"
        f"child.run('tests.engines.test_child:hold', {{'note': {str(note)!r}}}, log=Path({str(tmp_path / 'log')!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    until = time.time() + 20
    while not (note.exists() and note.read_text()) and time.time() < until:
        time.sleep(0.02)
    pid = int(note.read_text())
    parent.kill()
    parent.wait()
    while psutil.pid_exists(pid) and time.time() < until:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)
