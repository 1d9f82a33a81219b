"""Runs are separate, supervised processes, and how each ended is told as it was.

Proves S0-5.3-4, S3-1.1-3, S2-3.4-5 and S1-R4.3-1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lab.runs.folder import RunFolder, boot
from lab.runs.run import Handle, RunSpec, again, launch
from lab.runs.supervise import Supervisor

Until = Callable[[Callable[[], bool]], None]


def run(tmp_path: Path, script: str, **fields: object) -> Handle:
    """A run of a shell line."""
    return launch(RunSpec(tmp_path / "runs" / "r1", "r", ("sh", "-c", script), cwd=str(tmp_path), **fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("script", "state", "reason"),
    [
        ("exit 0", "finished", ""),
        ("exit 3", "failed", "exit code 3"),
        ("nosuchcommand_", "failed", "command not found"),
        ("kill -SEGV $$", "killed", "SIGSEGV"),
        ("kill -KILL $$", "killed", "SIGKILL"),
    ],
)
def test_the_way_it_ended_is_told(tmp_path: Path, script: str, state: str, reason: str) -> None:
    """Exit codes and signals are told apart."""
    result = run(tmp_path, script).wait(20)
    assert result is not None
    assert (result["state"], reason in result["reason"]) == (state, True), result


def test_a_command_that_does_not_exist_is_a_failed_run(tmp_path: Path) -> None:
    """What cannot be started has failed, with the reason."""
    result = launch(RunSpec(tmp_path / "r", "r", ("/no/such/program",), cwd=str(tmp_path))).wait(20)
    assert result is not None
    assert result["state"] == "failed"
    assert "could not be started" in result["reason"]


def test_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    """Over its time it is ended with all its children, even those that ignore SIGTERM."""
    script = "trap '' TERM; sleep 97 & echo $! > child; wait; sleep 98"
    result = run(tmp_path, script, timeout=0.4, grace=0.3).wait(20)
    assert result is not None
    assert result["state"] == "timed out"
    child = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_memory_over_the_limit_is_told_as_such(tmp_path: Path) -> None:
    """A run that takes more memory than declared is ended, and that is said."""
    code = "import time; x = bytearray(300_000_000); time.sleep(20)"
    spec = RunSpec(tmp_path / "r", "r", (sys.executable, "-c", code), cwd=str(tmp_path), memory=150_000_000, sample=0.1)
    result = launch(spec).wait(20)
    assert result is not None
    assert result["state"] == "out of memory"
    assert "150 MB" in result["reason"]


def test_promises_are_kept_or_the_run_failed(tmp_path: Path) -> None:
    """A run that promised an output or a metric and did not deliver has failed, whatever its exit code."""
    missing = run(tmp_path, "true", outputs={"model": "m.bin"}).wait(20)
    silent = launch(RunSpec(tmp_path / "r2", "r", ("true",), cwd=str(tmp_path), metrics=("loss",))).wait(20)
    assert missing is not None
    assert silent is not None
    assert (missing["state"], silent["state"]) == ("failed", "failed")
    assert "the output model" in missing["reason"]
    assert "the metric loss" in silent["reason"]


def test_what_it_prints_can_be_a_metric(tmp_path: Path) -> None:
    """A declared pattern reads numbers from what the program prints."""
    result = run(tmp_path, "echo 'loss: 0.5'; echo 'loss: 0.25'", patterns={"loss": r"loss: ([0-9.]+)"}).wait(20)
    assert result is not None
    assert result["metrics"] == {"loss": 0.25}


def test_the_last_value_is_the_last_attempt_s(tmp_path: Path) -> None:
    """What a retried program prints or logs without a step goes on after the attempt before."""
    script = "test -e again && { echo x=7; exit 0; }; touch again; echo x=1; echo x=2; echo x=3; exit 1"
    result = run(tmp_path, script, retries=1, patterns={"x": "x=([0-9]+)"}).wait(20)
    assert result is not None
    assert (result["attempts"], result["metrics"]) == (2, {"x": 7.0})
    (tmp_path / "c.py").write_text(
        "import lab.sdk as lab\ndef main(resumed):\n    for v in ([7] if resumed else [1, 2, 3]): lab.log({'y': v})\n"
        "    if not resumed: raise ValueError('again')\n"
    )
    spec = RunSpec(tmp_path / "s", "s", call="c:main", cwd=str(tmp_path), path=(str(tmp_path),), retries=1)
    result = launch(spec).wait(20)
    assert result is not None
    assert (result["attempts"], result["metrics"]) == (2, {"y": 7.0})


def test_a_run_that_fails_twice_and_then_passes_took_three_attempts(tmp_path: Path) -> None:
    """Retries are counted, and each knows that it is a later attempt."""
    script = 'echo x >> tries; echo "$LAB_RESUME" >> resumed; test $(wc -l < tries) -ge 3'
    result = run(tmp_path, script, retries=3).wait(20)
    assert result is not None
    assert (result["state"], result["attempts"]) == ("finished", 3)
    assert (tmp_path / "resumed").read_text().split() == ["1", "1"]


def test_stop_ends_it_and_says_so(tmp_path: Path, until: Until) -> None:
    """A stopped run ends within five seconds, with its group, and is neither failed nor retried."""
    handle = run(tmp_path, "echo up; sleep 60", retries=5)
    until(lambda: b"up" in _log(handle))
    began = time.monotonic()
    handle.stop()
    result = handle.wait(10)
    assert result is not None
    assert (result["state"], result["attempts"]) == ("stopped", 1)
    assert time.monotonic() - began < 5


def test_a_paused_run_uses_no_processor(tmp_path: Path, until: Until) -> None:
    """Pause freezes the whole group within two seconds; it then goes on where it was."""
    handle = run(tmp_path, "i=0; while [ $i -lt 4000000 ]; do i=$((i+1)); done; echo $i")
    until(lambda: handle.folder.state() == "running" and "child" in handle.folder.read("process.json"))
    handle.pause()
    until(lambda: handle.folder.state() == "paused")
    child = psutil.Process(handle.folder.read("process.json")["child"]["pid"])
    until(lambda: child.status() == psutil.STATUS_STOPPED)
    before = sum(child.cpu_times()[:2])
    time.sleep(0.4)
    assert sum(child.cpu_times()[:2]) == before
    handle.unpause()
    until(lambda: child.status() != psutil.STATUS_STOPPED)
    handle.stop()
    assert handle.wait(10) is not None


def test_it_outlives_whoever_started_it(tmp_path: Path, until: Until) -> None:
    """The run belongs to its supervisor: killing the starter's whole session does not touch it."""
    code = (
        "import sys; from pathlib import Path; from lab.runs.run import RunSpec, launch\n"
        f"spec = RunSpec(Path({str(tmp_path / 'r')!r}), 'r', ('sh', '-c', 'sleep 1; echo done'), cwd='/')\n"
        "launch(spec)\n"
        "print('started', flush=True); import time; time.sleep(60)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"started\n"
    os.killpg(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    handle = Handle(RunFolder(tmp_path / "r"))
    result = handle.wait(20)
    assert result is not None
    assert result["state"] == "finished"
    assert b"done" in _log(handle)


COUNTER = """\
import pathlib, time, lab.sdk as lab
def main(checkpoints, resumed, last: int = 6, pause: float = 0.15):
    seen = sorted(int(p.stem) for p in pathlib.Path(checkpoints).glob("*.txt"))
    start = seen[-1] + 1 if resumed and seen else 0
    for step in range(start, last):
        lab.log({"step": step}, step=step)
        (pathlib.Path(checkpoints) / f"{step}.txt").write_text("x")
        time.sleep(pause)
    return {"started_at": start}
"""


def counter(tmp_path: Path) -> RunSpec:
    """A call that keeps checkpoints."""
    (tmp_path / "counter.py").write_text(COUNTER)
    return RunSpec(tmp_path / "r", "r", call="counter:main", cwd=str(tmp_path), path=(str(tmp_path),))


def test_kill_9_of_everything_is_interrupted_and_resume_goes_on(tmp_path: Path, until: Until) -> None:
    """Nobody saw it end: it is `interrupted`, and a resumed run continues from its checkpoint, not from 0."""
    handle = launch(counter(tmp_path))
    until(lambda: (handle.folder / "checkpoints" / "1.txt").exists())
    process = handle.folder.read("process.json")
    os.kill(process["supervisor"]["pid"], signal.SIGKILL)
    os.killpg(process["child"]["pid"], signal.SIGKILL)
    result = handle.wait(10)
    assert result is not None
    assert result["state"] == "interrupted"
    assert "supervisor died" in result["reason"]
    assert result["metrics"]["step"] >= 1
    result = again(handle.folder).wait(20)
    assert result is not None
    assert result["state"] == "finished"
    assert result["metrics"]["started_at"] > 0
    steps = [step for step, _, values in handle.folder.metrics() if "step" in values]
    assert steps == sorted(set(steps)) == list(range(6))


def test_a_run_without_its_supervisor_is_told_so_and_its_end_is_known(tmp_path: Path, until: Until) -> None:
    """Killing only the supervisor leaves an `unsupervised` run whose own last words become its result."""
    handle = launch(counter(tmp_path))
    until(lambda: (handle.folder / "checkpoints" / "0.txt").exists())
    os.kill(handle.folder.read("process.json")["supervisor"]["pid"], signal.SIGKILL)
    until(lambda: handle.folder.state() == "unsupervised")
    assert handle.poll() is None
    result = handle.wait(20)
    assert result is not None
    assert result["state"] == "finished"


def test_a_restart_of_the_machine_is_told_truthfully(tmp_path: Path) -> None:
    """A run of another boot is not alive, whatever process now has its id."""
    folder = RunFolder(tmp_path / "r")
    folder.write("spec.json", {"id": "r", "name": "r", "argv": ["true"]})
    me = {"pid": os.getpid(), "start": "1", "boot": "another"}
    folder.write("process.json", {"supervisor": me, "child": me, "attempt": 1, "started": time.time() - 60})
    assert boot() != "another"
    result = Handle(folder).poll()
    assert result is not None
    assert (result["state"], "restarted" in result["reason"]) == ("interrupted", True)


def test_the_same_folder_is_never_run_twice(tmp_path: Path) -> None:
    """Launching where a run lives or has finished answers that one."""
    one = run(tmp_path, "echo x >> count; sleep 0.3")
    two = run(tmp_path, "echo x >> count; sleep 0.3")
    assert one.wait(20) == two.wait(20)
    run(tmp_path, "echo x >> count").wait(20)
    assert (tmp_path / "count").read_text() == "x\n"


def test_secrets_are_in_no_file_and_no_process_list(tmp_path: Path, until: Until) -> None:
    """The program has the value; its log shows ***; spec, inputs and command lines do not have it."""
    value = "s3cr3t-value-91"
    spec = RunSpec(
        tmp_path / "r", "r", ("sh", "-c", 'echo "token $TOKEN"; sleep 0.5'), cwd=str(tmp_path), secrets=("TOKEN",)
    )
    handle = launch(spec, {}, {"TOKEN": value})
    until(lambda: b"token" in _log(handle))
    lines = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    assert not any(value in line for line in lines if "pytest" not in line)
    handle.wait(20)
    assert b"token ***" in _log(handle)
    for file in (tmp_path / "r").rglob("*"):
        if file.is_file():
            assert value.encode() not in file.read_bytes(), file


def test_early_stop_finishes_it(tmp_path: Path) -> None:
    """A run whose metric reached its target is finished early, with the reason."""
    (tmp_path / "c.py").write_text(
        "import time, lab.sdk as lab\ndef main():\n    for s in range(500):\n"
        "        lab.log({'loss': 1 / (s + 1)}, step=s)\n        time.sleep(0.02)\n"
    )
    spec = RunSpec(
        tmp_path / "r", "r", call="c:main", cwd=str(tmp_path), path=(str(tmp_path),), sample=0.1,
        stop={"metric": "loss", "target": 0.2},
    )  # fmt: skip
    result = launch(spec).wait(20)
    assert result is not None
    assert (result["state"], result["reason"]) == ("finished", "loss reached 0.2")


def test_an_inline_run_leaves_the_same_records(tmp_path: Path) -> None:
    """In this process, without a supervisor: the same files, and what is raised is its result."""
    (tmp_path / "i.py").write_text("def main(x: int): return {'y': 2 * x}\ndef bad(): raise ValueError('no')\n")
    base = {"cwd": str(tmp_path), "path": (str(tmp_path),), "isolation": "inline"}
    good = launch(RunSpec(tmp_path / "a", "a", call="i:main", params={"x": 21}, **base)).poll()  # type: ignore[arg-type]
    bad = launch(RunSpec(tmp_path / "b", "b", call="i:bad", **base)).poll()  # type: ignore[arg-type]
    assert good is not None
    assert bad is not None
    assert (good["state"], good["metrics"]) == ("finished", {"y": 42.0})
    assert (bad["state"], bad["reason"]) == ("failed", "ValueError: no")
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == good


def test_what_follows_an_inline_run_is_done_and_not_waited_for(tmp_path: Path) -> None:
    """It had been left out, and `lab run` waited two minutes for it: one hook works, the other's fault is noted."""
    (tmp_path / "i.py").write_text(
        "def main(): pass\ndef hook(folder): (folder / 'done').touch()\ndef bad(folder): raise OSError('no room')\n"
    )
    spec = RunSpec(
        tmp_path / "a", "a", call="i:main", cwd=str(tmp_path), path=(str(tmp_path),), isolation="inline",
        after=("i:hook", "i:bad"),
    )  # fmt: skip
    sys.path.insert(0, str(tmp_path))
    try:
        launch(spec)
    finally:
        sys.path.remove(str(tmp_path))
    assert (tmp_path / "a" / "done").exists()
    assert json.loads((tmp_path / "a" / "after.json").read_text()) == {"wrong": ["no room"]}


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="needs to mount a small disk")
def test_a_full_disk_loses_no_result(tmp_path: Path, until: Until) -> None:
    """The disk fills while it runs: the program goes on, and its end is told once there is room again."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(small)], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (tmp_path / "fill.py").write_text(
            "import pathlib, lab.sdk as lab\ndef main(out: str):\n    lab.log({'a': 1})\n"
            "    try:\n        pathlib.Path(out).write_bytes(b'x' * 10**6)\n    except OSError:\n        pass\n"
            "    for s in range(50): lab.log({'b': s})\n"
        )
        spec = RunSpec(
            small / "r", "r", call="fill:main", params={"out": str(small / "big")}, cwd="/", path=(str(tmp_path),)
        )
        handle = launch(spec)
        until(lambda: (handle.folder / "lease").exists() and (small / "big").exists())
        assert handle.wait(1.5) is None
        assert handle.folder.state() == "running"
        (small / "big").unlink()
        result = handle.wait(10)
        assert result is not None
        assert (result["state"], result["metrics"]["a"]) == ("finished", 1.0)
    finally:
        subprocess.run(["umount", "-l", str(small)], capture_output=True)


def _log(handle: Handle) -> bytes:
    try:
        return (handle.folder / "output.log").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("looks", ["at the machine", "at checkpoints"])
def test_a_watch_ends_with_its_attempt_and_says_nothing_of_it_afterwards(
    looks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it was looking elsewhere: it would time the next attempt by its own beginning, for ever."""
    folder = RunFolder(tmp_path)
    folder.write("spec.json", {"sample": 0.01} if looks == "at the machine" else {"keep": {"last": 1}})
    one, ended = Supervisor(folder, None, {}), threading.Event()  # type: ignore[arg-type]

    def late(*_: object) -> dict[str, float]:
        ended.set()
        one.over.set()
        one.over.clear()
        return {"late": 1.0}

    if looks == "at the machine":
        monkeypatch.setattr("lab.runs.sample.Sampler", lambda *_: SimpleNamespace(read=late))
    else:
        monkeypatch.setattr("lab.runs.sample.Sampler", None)
        monkeypatch.setattr("lab.runs.supervise.prune", late)
    watch = threading.Thread(target=one._watch, args=(time.monotonic(), os.getpid(), ended), daemon=True)
    watch.start()
    watch.join(20)
    assert not watch.is_alive()
    assert not (tmp_path / "system.jsonl").exists()


def test_one_that_outgrew_what_was_expected_ends_when_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its spec names is asked, with what it uses now; where that gives a reason, it is the run's."""
    folder = RunFolder(tmp_path)
    spec = {"expects": 300 << 20, "total": 1000 << 20, "drowning": "lab.adapters.footprint:drowning"}
    folder.write("spec.json", spec)
    one = Supervisor(folder, None, {})  # type: ignore[arg-type]
    monkeypatch.setattr("lab.runs.sample.Sampler", lambda *_: SimpleNamespace(memory=lambda: 600 << 20))
    monkeypatch.setattr("lab.adapters.machine.available", lambda: 20 << 20)
    ended = threading.Event()
    enough = threading.Timer(10, ended.set)
    enough.start()
    one._watch(time.monotonic(), os.getpid(), ended)
    enough.cancel()
    assert (one.why, "21 MB are left" in one.reason) == ("out of memory", True)
