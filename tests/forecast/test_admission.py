"""Memory is promised once: what does not fit waits in its turn, and what outgrows its promise is stopped.

Proves: issue 7, admission at run time with real processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lab.adapters import admission, footprint, machine
from lab.core.problem import Problems

MIB = 1 << 20
HOLD = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from lab.adapters.admission import admit
    from lab.core.problem import Problems
    state, name, need, total, seconds = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5]), float(sys.argv[5])
    try:
        with admit(state, need, total, name, wait=sys.argv[6] == "wait"):
            print("in", flush=True)
            time.sleep(seconds)
    except Problems as e:
        print("refused", e.problems[0].why, flush=True)
""")


def start(state: Path, name: str, need: int, total: int, seconds: float, wait: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(state), name, str(need), str(total), str(seconds), wait]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_exactly_as_many_start_as_fit(tmp_path: Path) -> None:
    """Of eight processes that want 60 MiB each at once out of 200 MiB, exactly three get them."""
    running = [start(tmp_path, f"job{i}", 60 * MIB, 200 * MIB, 20, "no") for i in range(8)]
    said = [p.stdout.readline().split()[0] for p in running if p.stdout]
    for p in running:
        p.terminate()
        p.wait()
        assert p.stdout
        p.stdout.close()
    assert said.count("in") == 3
    assert said.count("refused") == 5


def test_waiters_go_in_their_turn_and_are_told_why(tmp_path: Path) -> None:
    """A small job does not pass a large one that came first; both are told what they wait for."""
    holder = start(tmp_path, "holder", 80 * MIB, 100 * MIB, 60, "no")
    assert holder.stdout
    assert holder.stdout.readline() == "in\n"
    large = start(tmp_path, "large", 60 * MIB, 100 * MIB, 0.3, "wait")
    until(lambda: any(e.name == "large" for e in admission.status(tmp_path)))
    small = start(tmp_path, "small", 10 * MIB, 100 * MIB, 0.1, "wait")
    until(lambda: any(e.name == "small" for e in admission.status(tmp_path)))
    waiting = {e.name: e for e in admission.status(tmp_path)}
    assert not waiting["large"].held
    assert "holder" in waiting["large"].reason
    assert not waiting["small"].held
    assert "large came first" in waiting["small"].reason
    holder.kill()  # a dead holder's promise lapses by itself
    holder.wait()
    for p in (large, small):
        assert p.stdout
        assert p.stdout.readline() == "in\n"
        assert p.wait(10) == 0
        p.stdout.close()
    holder.stdout.close()
    assert admission.status(tmp_path) == []


def test_what_is_in_use_counts_even_where_nobody_promised_it(tmp_path: Path) -> None:
    """A job is not started into memory that other programs have taken."""
    with (
        pytest.raises(Problems) as e,
        admission.admit(tmp_path, 8 * MIB, 100 * MIB, "job", wait=False, free=lambda: 5 * MIB),
    ):
        pass
    assert "are free now" in e.value.problems[0].why


def test_what_can_never_fit_is_refused_at_once(tmp_path: Path) -> None:
    """More than there is to give is a problem that names the limit and what to declare, not an endless wait."""
    with pytest.raises(Problems) as e, admission.admit(tmp_path, 11 * MIB, 10 * MIB, "job", wait=True):
        pass
    assert "10.5 MB" in e.value.problems[0].why
    assert "allow_overcommit" in e.value.problems[0].do


def test_a_job_that_outgrows_its_promise_is_stopped(tmp_path: Path) -> None:
    """A process that takes 400 MB after promising 40 is stopped before it ends by itself; one that keeps is left."""
    grows = "import time; x = bytearray(400 << 20); x[::4096] = b'1' * len(x[::4096]); time.sleep(30)"
    child = subprocess.Popen([sys.executable, "-c", grows])
    with footprint.watch(child.pid, 40 * MIB, every=0.05) as seen:
        child.wait(20)
    assert child.returncode != 0
    assert "was promised 41.9 MB" in seen.stopped
    keeps = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
    with footprint.watch(keeps.pid, 40 * MIB, every=0.05) as seen:
        keeps.wait(20)
    assert keeps.returncode == 0
    assert not seen.stopped
    assert seen.peak > 0


def test_memory_is_scarce_by_the_containers_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small container on a large machine has room while half of it is free, and none when it is full."""
    used = {"memory.max": 100 * MIB, "memory.current": 50 * MIB}
    monkeypatch.setattr(machine, "_cgroup", used.get)
    assert machine.total() == 100 * MIB
    assert not footprint.scarce()
    used["memory.current"] = 99 * MIB
    assert footprint.scarce()


def test_a_reused_pid_and_a_torn_ledger_hold_nothing(tmp_path: Path) -> None:
    """An entry whose process started at another time lapses; a ledger that is no JSON is an empty one."""
    stranger = {"id": "x", "pid": 1, "born": 1.0, "name": "old", "need": 10 * MIB, "held": True, "came": 0}
    for text in (json.dumps([stranger]), "{half"):
        admission.place(tmp_path).write_text(text)
        with admission.admit(tmp_path, 9 * MIB, 10 * MIB, "job", wait=False) as promise:
            assert [e.name for e in admission.status(tmp_path)] == ["job"]
            assert promise.need == 9 * MIB
    assert admission.status(tmp_path) == []


def until(true: object) -> None:
    deadline = time.monotonic() + 10
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
