"""Run inside the sandbox: guests are made, try what is forbidden beside what is allowed, and go without a trace."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pwd
import socket
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lab.adapters.ansible import perform
from lab.adapters.world import Machine
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import differences
from lab.kinds.guest import Guest
from tests.host import guest_tools
from tests.host.guest_tools import LAB, STORE, hour, key, must, report, sh, snapshot
from tests.host.refusals import refused
from tests.host.support import Context, Stage, readable


def prepare() -> None:
    must("apt-get install -y --no-install-recommends cron at sudo >/dev/null")
    must(
        "useradd -m -s /bin/bash owner && chmod 755 /home/owner && echo 'owner ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/owner"  # noqa: E501
    )
    LAB.joinpath("state").mkdir(parents=True)
    LAB.joinpath("conf").mkdir()
    LAB.joinpath("conf/lab.yaml").write_text("lab: {name: studio, id: 5f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42}\n")
    LAB.joinpath("state/ledger.db").write_text("ledger")
    Path("/home/owner/.secret").write_text("hunter2")
    for name in ("models/tiny", "models/other", "envs/.made/good/1/bin", "envs/.made/bad/1/bin"):
        (STORE / name).mkdir(parents=True)
    for name in ("tiny", "other"):
        (STORE / "models" / name / "weights").write_text("weights of " + name)
    for name in ("tiny", "other"):
        blob = STORE / "blobs" / name[:2] / name
        blob.parent.mkdir(parents=True)
        blob.write_text("blob of " + name)
        (STORE / "models" / name / "link").symlink_to(blob)
    for name in ("good", "bad"):
        (STORE / "envs" / name).symlink_to(STORE / "envs/.made" / name / "1")
        tool = STORE / "envs" / name / "bin/tool"
        tool.write_text("#!/bin/sh\necho tool of " + name + "\n")
        tool.chmod(0o755)
    Path("/home/owner/.ssh").mkdir(mode=0o700)
    Path("/home/owner/.ssh/authorized_keys").write_text(key("owner") + "\n")
    Path("/home/owner/.ssh/rc").write_text("touch /home/owner/rc-ran\n")
    must("chown -R owner: /home/owner && chmod 644 /home/owner/.secret")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        guest_tools.PORT = s.getsockname()[1]
    must("ssh-keygen -A >/dev/null; mkdir -p /run/sshd")
    readable()


def serve() -> subprocess.Popen[bytes]:
    daemon = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-p", str(guest_tools.PORT), "-o", "ListenAddress=127.0.0.1",
         "-o", "MaxStartups=100", "-o", "PidFile=/run/sshd.pid", "-o", "X11Forwarding=yes", "-o", "LogLevel=VERBOSE"],
        stderr=open("/tmp/sshd.log", "wb"),  # noqa: SIM115
    )  # fmt: skip
    for _ in range(100):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", guest_tools.PORT), 1).close()
            return daemon
        time.sleep(0.05)
    raise AssertionError("sshd does not answer: " + Path("/tmp/sshd.log").read_text())


def context(name: str) -> Context:
    made = {
        "model.tiny": SimpleNamespace(wanted=lambda c: {"view": str(STORE / "models/tiny")}),
        "env.good": SimpleNamespace(wanted=lambda c: {"link": str(STORE / "envs/good")}),
    }
    return Context(
        f"guest.{name}", str(LAB), str(LAB / "state"), str(STORE), home="/home/owner", declarations=made, facts=recorded
    )


recorded: dict[str, Any] = {}


def play(guests: dict[str, Guest], action: Action, check: bool = False) -> list[Any]:
    plays, stages = [], []
    for name, guest in guests.items():
        change = Change(Address(f"guest.{name}"), action, recorded=recorded.get(f"guest.{name}"))
        plays += list(guest.steps(change, context(name)))
        stages.append(Stage(f"guest.{name}", LAB, LAB / "state", STORE))
    told = perform(plays, stages, check=check)
    assert not any(isinstance(t, Exception) for t in told), told
    return told


def observe(guests: dict[str, Guest]) -> dict[str, Any]:
    return {n: g.observe(Machine(), context(n)) for n, g in guests.items()}


def main() -> None:
    faulthandler.dump_traceback_later(500, exit=True)
    prepare()
    before = snapshot()
    keys = {n: key(n) for n in ("ann", "ben", "old", "late", "kim", "stranger")}
    guests = {
        "ann": Guest(
            keys=[keys["ann"]],
            expires="2031-01-01",
            person="Ann {{ 1/0 }}",
            may=["model.tiny", "env.good"],
            limits={"memory": "1GiB", "processes": 60, "file": "64MiB"},
            hide_processes=True,
        ),
        "ben": Guest(keys=[keys["ben"]]),
        "old": Guest(keys=[keys["old"]], expires="2020-01-01"),
        "late": Guest(keys=[keys["late"]], hours=f"{hour(2)}-{hour(3)}"),
        "kim": Guest(keys=[keys["kim"]], shell=False),
    }
    daemon = serve()
    r = report["round"]
    r["absent before"] = observe(guests) == dict.fromkeys(guests)
    r["check mode would make them"] = [t["changed"] for t in play(guests, Action.CREATE, check=True)]
    r["and makes none"] = observe(guests) == dict.fromkeys(guests)
    play(guests, Action.CREATE)
    seen = observe(guests)
    r["as declared"] = [
        str(d) for n, g in guests.items() for d in differences(seen[n], g.wanted(context(n)), partial=True)
    ]
    recorded.update({f"guest.{n}": s for n, s in seen.items()})
    r["processes hidden"] = "hidepid" in Path("/proc/mounts").read_text()
    r["check mode agrees"] = [t["changed"] for t in play(guests, Action.UPDATE, check=True)]
    r["second run changes nothing"] = [t["changed"] for t in play(guests, Action.UPDATE)]
    time.sleep(0.3)
    refused()
    drift(guests)
    must(
        "su ann -s /bin/bash -c 'setsid sleep 999 >/dev/null 2>&1 & touch /tmp/of-ann; mkdir /tmp/d-ann; touch /tmp/d-ann/x'"  # noqa: E501
    )
    uid = pwd.getpwnam("ann").pw_uid
    recorded.update({f"guest.{n}": s for n, s in observe(guests).items()})
    play(guests, Action.DESTROY)
    r["nobody left"] = observe(guests) == dict.fromkeys(guests)
    r["no file left"] = sh(f"find /tmp /var/tmp /dev/shm /srv /home /etc /var/spool -uid {uid}")
    r["no process left"] = sh(f"pgrep -u {uid}")
    r["processes shown again"] = "hidepid" not in Path("/proc/mounts").read_text()
    r["removing again changes nothing"] = [t["changed"] for t in play(guests, Action.DESTROY)]
    daemon.terminate()
    daemon.wait()
    with contextlib.suppress(FileNotFoundError):
        os.unlink("/home/owner/rc-ran")
    os.unlink("/tmp/sshd.log")
    after = snapshot()
    r["left or changed"] = sorted(p for p in {*before, *after} if before.get(p) != after.get(p))
    r["archives"] = [(p.name, oct(p.stat().st_mode & 0o777)) for p in sorted((LAB / "state/guests").glob("*.tar.gz"))]
    again = {"zoe": Guest(keys=[keys["ann"]])}
    play(again, Action.CREATE)
    r["a uid is never given twice"] = pwd.getpwnam("zoe").pw_uid > uid
    print(json.dumps(report))


def drift(guests: dict[str, Guest]) -> None:
    """What was changed by hand is seen field by field, and repaired."""
    must(f"setfacl -m u:ann:rwx {STORE}/models/tiny; usermod -e 2040-01-01 ann; echo x >> /etc/lab/guests/ann/rules")
    seen = guests["ann"].observe(Machine(), context("ann"))
    found = differences(recorded["guest.ann"], seen, partial=True)
    report["round"]["drift"] = [d.field for d in found]
    play({"ann": guests["ann"]}, Action.UPDATE)
    again = guests["ann"].observe(Machine(), context("ann"))
    report["round"]["drift after repair"] = [str(d) for d in differences(again, recorded["guest.ann"], partial=True)]


if __name__ == "__main__":
    main()
