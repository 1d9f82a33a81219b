"""The same sweep on another engine has the same results; a worker that dies loses no trial.

Proves S4-2.2.1-3 and S3-5.3-1 as far as one host shows them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.sweeps.conftest import Place
from tests.sweeps.kills import killed
from tests.sweeps.test_admitted import until
from tests.sweeps.test_faults import most_at_once

SWEEP = {
    "experiment": "trial",
    "space": {"x": [0.0, 1.0, 2.0, 3.0], "y": [-2.0, 0.0]},
    "objective": "loss",
    "sampler": "grid",
    "parallel": 2,
    "params": {"seconds": 0.5},
}


def check(place: Place, found: Any) -> None:
    """Eight points, each once, with the values the local executor gives."""
    study = place.study(found["study"])
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 8
    assert len({(t.params["x"], t.params["y"]) for t in study.trials}) == 8
    assert all(t.value == (t.params["x"] - 1) ** 2 + (t.params["y"] + 2) ** 2 for t in study.trials)
    assert found["best"]["params"] == {"x": 1.0, "y": -2.0}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_two_hundred_trials_with_four_workers_killed_twenty_times(place: Place, engine: str) -> None:
    """Workers of the engine die, and coordinators, supervisors and programs: 200 trials complete, none twice."""
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[engine])
    kills = {"worker": 9, "coordinator": 2, "supervisor": 4, "child": 5}
    killed(place, ("--executor", engine), trials=200, workers=4, kills=kills, seed=5)


@pytest.mark.slow
def test_a_scheduler_by_its_address(place: Place) -> None:
    """Trials run on the workers of a scheduler that was there before; it is there after."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        place.write(
            "conf/sweep/far.yaml", {**SWEEP, "executor": {"name": "dask", "address": cluster.scheduler_address}}
        )
        check(place, place.sweep("far"))
        with distributed.Client(cluster) as client:
            assert len(client.scheduler_info()["workers"]) == 2


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told(place: Place) -> None:
    """In seconds, with its address; no trial begins."""
    pytest.importorskip("distributed")
    executor = {"name": "dask", "address": "tcp://127.0.0.1:9", "timeout": "2s"}
    place.write("conf/sweep/far.yaml", {**SWEEP, "executor": executor})
    assert "no Dask cluster at tcp://127.0.0.1:9" in place.lab("sweep", "far", code=1)
    assert not (place.state / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_what_a_trial_declares_is_asked_of_the_engine(place: Place, engine: str) -> None:
    """Trials that ask for all cores of the host run one at a time where two might; one that none can hold is told."""
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[engine])
    text = (place.root / "conf/experiment/trial.yaml").read_text()
    cores = max(2, os.cpu_count() or 1) if engine == "ray" else os.cpu_count()
    place.write("conf/experiment/trial.yaml", text + f"resources: {{cores: {cores}}}\n")
    place.write("conf/sweep/all.yaml", {**SWEEP, "executor": engine})
    check(place, place.sweep("all"))
    assert most_at_once(place) == 1
    place.write("conf/experiment/trial.yaml", text + "resources: {cores: 4096}\n")
    said = place.lab("sweep", "all", code=1)
    assert "can hold a trial" in said
    assert "4096" in said


class Sshd:
    """A private sshd on loopback, and the client's configuration in which it is known by several names."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "ssh_config"
        for name in ("host", "me"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        shutil.copy(folder / "me.pub", folder / "authorized")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        options = {
            "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "StrictModes": "no",
            "AuthorizedKeysFile": folder / "authorized", "UsePAM": "no", "PidFile": "none", "PermitRootLogin": "yes",
        }  # fmt: skip
        words = [w for k, v in options.items() for w in ("-o", f"{k}={v}")]
        self.log = open(folder / "sshd.log", "wb")  # noqa: SIM115 - closed in `close`
        self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *words], stderr=self.log)
        self.config.write_text(
            f"Host one two\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder / 'me'}\n  IdentitiesOnly yes\n"
            f"  StrictHostKeyChecking no\n  UserKnownHostsFile {folder / 'known'}\n  LogLevel ERROR\n"
        )

    def close(self) -> None:
        """It ends, its sessions with it."""
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """Hosts `one` and `two`, reached by ssh."""
    if not Path("/usr/sbin/sshd").exists():
        pytest.skip("needs an sshd")
    (tmp_path / "ssh").mkdir()
    found = Sshd(tmp_path / "ssh")
    monkeypatch.setenv("LAB_SSH", f"ssh -F {found.config}")
    yield found
    found.close()


def parts() -> list[psutil.Process]:
    """Dask's schedulers and workers that live, of this user's sessions."""
    found = []
    for p in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any("distributed.cli.dask_" in w and " " not in w for w in p.cmdline()):
                found.append(p)
    return found


@pytest.mark.slow
def test_hosts_over_ssh_give_the_same_results_and_leave_nothing(place: Place, sshd: Sshd) -> None:
    """One by its name in conf/host, one as ssh knows it; a worker that dies loses no trial; none lives afterwards."""
    pytest.importorskip("distributed")
    place.write("conf/host/studio.yaml", {"ssh": "one", "folder": str(place.root)})
    place.write("conf/sweep/far.yaml", {**SWEEP, "executor": {"name": "dask", "hosts": ["studio", "two"]}})
    before = {p.pid for p in parts()}
    running = place.start("sweep", "far", "--json")

    def workers() -> list[psutil.Process]:
        return [p for p in parts() if p.pid not in before and "distributed.cli.dask_worker" in p.cmdline()]

    until(lambda: any(place.state.glob("runs/far-*/result.json")))
    max(workers(), key=lambda p: p.create_time()).kill()
    out, _ = running.communicate(timeout=120)
    assert running.returncode == 0, out
    check(place, json.loads(out[out.index("{") :]))
    until(lambda: {p.pid for p in parts()} <= before)


@pytest.mark.slow
def test_a_host_that_ssh_does_not_reach_is_told(place: Place, sshd: Sshd) -> None:
    """With ssh's own reason; what was started on the others has ended, and no trial begins."""
    pytest.importorskip("distributed")
    place.write("conf/sweep/far.yaml", {**SWEEP, "executor": {"name": "dask", "hosts": ["one", "nowhere.invalid"]}})
    before = {p.pid for p in parts()}
    said = place.lab("sweep", "far", code=1)
    assert "no Dask cluster on nowhere.invalid" in said
    assert "Could not resolve hostname" in said
    until(lambda: {p.pid for p in parts()} <= before)
    assert not (place.state / "runs").exists()
