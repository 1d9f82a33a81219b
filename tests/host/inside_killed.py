"""Run inside the sandbox: guests and sshd made and unmade, killed before and after each effect; what must hold then."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults import hook
from tests.host import guest_tools
from tests.host.guest_tools import key, must, sh, snapshot
from tests.host.inside_access import free, gets_in

HERE = Path(__file__).parents[2]
ROOT = Path("/srv/lab/repo")
LOG = Path("/tmp/killed.log")
DUMP = """
    import time
    with open("/root/ops-%d.json" % time.monotonic_ns(), "w") as f:
        __import__("json").dump(module.params, f)
    results = []
"""
report: dict[str, Any] = {"deeds": {}, "lost": [], "reverted": 0, "applies": 0}
port = 0


def lab(*words: str) -> str:
    command = [sys.executable, "-m", "lab", "-C", str(ROOT), *words]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return f"{done.stdout}{done.stderr}[{done.returncode}]"


def declare(*kinds: str) -> None:
    texts = {
        "guest/ann": f"keys: ['{report['ann']}']\nexpires: 2031-01-01\nhide_processes: true\n",
        "access/studio": f"users: [owner]\ndevices: {{laptop: '{report['laptop']}'}}\nsshd: {{port: {port}}}\n",
    }
    for name, text in texts.items():
        path = ROOT / f"conf/{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if name.partition("/")[0] in kinds:
            path.write_text(text)


def prepare() -> subprocess.Popen[bytes]:
    global port
    must("useradd -m -s /bin/bash owner; ssh-keygen -A >/dev/null; mkdir -p /run/sshd")
    (ROOT / "conf").mkdir(parents=True)
    (ROOT / "conf/lab.yaml").write_text(
        "lab: {name: studio, id: 6f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42, store: /srv/lab/store}\n"
    )
    shutil.copytree(HERE / "playbooks", ROOT / "playbooks")
    batch = ROOT / "playbooks/library/lab_batch.py"
    batch.write_text(batch.read_text().replace("\n    results = []\n", DUMP, 1))
    Path("/root/keys").mkdir(mode=0o700, exist_ok=True)
    report["ann"], report["laptop"], own = key("ann"), key("laptop"), key("own")
    Path("/home/owner/.ssh").mkdir(mode=0o700)
    Path("/home/owner/.ssh/authorized_keys").write_text(own + "\n")
    must("chown -R owner: /home/owner")
    port = guest_tools.PORT = free()
    must(
        "sed -i '1i PidFile /run/sshd.pid' /etc/ssh/sshd_config; "
        f"echo 'Port {port}' > /etc/ssh/sshd_config.d/99-old.conf"
    )
    return subprocess.Popen(["/usr/sbin/sshd", "-D", "-E", "/tmp/sshd.log"])


def operations() -> dict[str, dict[str, Any]]:
    """What Lab has the module do, by deed, as it was asked in a real apply of each."""
    found = {}
    for name, kinds in {"guest made": "guest", "guest gone": "", "access made": "access", "access gone": ""}.items():
        before = set(Path("/root").glob("ops-*.json"))
        declare(kinds)
        said = lab("apply", "--yes", "--allow-destroy")
        assert said.endswith("[0]"), said
        (new,) = set(Path("/root").glob("ops-*.json")) - before
        found[name] = json.loads(new.read_text())
    return found


def perform(params: dict[str, Any]) -> list[str]:
    """The module's own work, here; what failed."""
    sys.path[:0] = [str(HERE / "playbooks/module_utils")]
    from lab_host.machine import Failed, Machine
    from lab_host.ops import perform as act

    for each in [*params["items"], {"ops": params["finish"] or []}]:
        try:
            for op in each["ops"]:
                act(Machine(), op)
        except Failed as e:
            return [f"{e.why} {e.do}"]
    return []


def struck(params: dict[str, Any], at: int) -> int:
    """The deed, killed at a boundary."""
    LOG.unlink(missing_ok=True)
    read = os.fork()
    if not read:
        os.setsid()
        hook.install(hook.Fault("/", str(LOG), at))
        code = 1
        try:
            code = 2 if perform(params) else 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(read, 0)[1])


def plainly(params: dict[str, Any]) -> list[str]:
    """The deed undisturbed, in a process of its own: what it complains of."""
    code = struck(params, 0)
    return [] if code == 0 else [f"it ended with {code}"]


UNLIKE = re.compile(
    r"/lab/state|broker|/access/(pending|revert|before|trial)|uids|last_uid|guests\.sock|/etc/(passwd|g?shadow|group)$"
)
"""What differs each time, or is told by `accounts`."""


def world() -> dict[str, str]:
    """What is on the machine; a guest's numbers are their name."""
    return {p: re.sub(r"\b2\d{4}:2\d{4}\b", "ann", x) for p, x in snapshot().items() if not UNLIKE.search(p)}


def accounts() -> list[str]:
    return sorted(x.partition(":")[0] for f in ("passwd", "shadow", "group", "gshadow")
                  for x in Path("/etc", f).read_text().splitlines() if x.startswith(("ann:", "lab")))  # fmt: skip


def always(where: str) -> Iterator[str]:
    """What must hold at every moment."""
    if not (said := sh("/usr/sbin/sshd -t")).endswith("[0]"):
        yield f"{where}: sshd would not start: {said}"
    if not gets_in(port, "own"):
        yield f"{where}: the owner cannot get in"


def campaign(name: str, deeds: dict[str, dict[str, Any]], most: int) -> None:
    made, gone = f"{name.split()[0]} made", f"{name.split()[0]} gone"
    back = gone if name == made else made
    struck(deeds[back], 0)
    start = world(), accounts()
    assert plainly(deeds[name]) == []
    lines = [x for x in hook.read(str(LOG)) if "n" in x]
    end = world(), accounts()
    assert start != end
    numbers = list(range(1, len(lines) + 1))
    if most and len(numbers) > most:
        numbers = numbers[:: -(len(numbers) // -most)]
    tried = survived = 0
    for at in numbers:
        assert plainly(deeds[back]) == []
        if name.startswith("access"):
            quiet()
        if struck(deeds[name], at) != -signal.SIGKILL:
            continue
        tried += 1
        where = f"{name}, killed at {at} of {len(lines)} ({lines[at - 1]['site'][:120]})"
        lost = list(always(where))
        lost += [f"{where}: the next one failed: {x}" for x in plainly(deeds[name])]
        lost += [f"{where}: afterwards {x}" for x in always(where)]
        now = world(), accounts()
        lost += [f"{where}: {p} is {now[0].get(p)}, not {end[0].get(p)}"
                 for p in sorted({*now[0], *end[0]}) if now[0].get(p) != end[0].get(p)]  # fmt: skip
        if now[1] != end[1]:
            lost.append(f"{where}: accounts are {now[1]}, not {end[1]}")
        if name == "guest gone" and sh("ls -d /home/ann /etc/lab/guests/ann; pgrep -u ann").count("No such file") != 2:
            lost.append(f"{where}: something of the guest is left")
        survived += not lost
        report["lost"] += lost
    report["deeds"][name] = {"boundaries": len(lines), "killed": tried, "survived": survived}


def quiet() -> None:
    """Nothing waits to go back: as after a confirmation."""
    sh("rm -rf /etc/lab/access/pending /etc/lab/access/before /etc/lab/access/revert; pkill -f /etc/lab/access/revert")


def reverts(deeds: dict[str, dict[str, Any]], most: int) -> None:
    """Killed while sshd is changed and tried, and nobody comes back: it goes back by itself."""
    assert plainly(deeds["access gone"]) == []
    quiet()
    start = world()
    quick = json.loads(json.dumps(deeds["access made"]))
    for op in quick["items"][0]["ops"]:
        op.update(minutes=0.07)
    struck(deeds["access made"], 0)
    lines = [x for x in hook.read(str(LOG)) if "n" in x]
    armed = next(x["n"] for x in lines if x["at"] == "spawned" and "revert" in x["site"])
    late = max(x["n"] for x in lines if "20-lab-access.conf" in x["path"] or "trial" in x["path"])
    for at in range(armed, late, max(1, (late - armed) // most)):
        plainly(deeds["access gone"])
        quiet()
        assert struck(quick, at) == -signal.SIGKILL
        until = time.monotonic() + 30
        while Path("/etc/lab/access/pending").exists() and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(0.3)
        where = f"killed in the trial at {at} ({lines[at - 1]['site'][:100]})"
        now = world()
        lost = list(always(where))
        left = [p for p in sorted({*now, *start}) if now.get(p) != start.get(p) and not p.startswith("/etc/lab")]
        lost += [f"{where}: it did not go back: {p}" for p in left]
        if Path("/etc/lab/access/keys/owner").exists():
            lost.append(f"{where}: keys of the trial stay")
        if "sshd -D -e" in sh("ps -ef"):
            lost.append(f"{where}: the trial's sshd still runs")
        report["lost"] += lost
        report["reverted"] += not lost


def applies() -> None:
    """`lab apply` itself and all that it started, killed at three points; the next one completes, the log holds."""
    import psutil

    moments: list[tuple[str, Callable[[], bool]]] = [
        ("Ansible has begun", lambda: "ansible-playbook" in sh("ps -ef")),
        ("the account is there", lambda: "ann:" in Path("/etc/passwd").read_text()),
        ("it is gone again", lambda: "ann:" not in Path("/etc/passwd").read_text()),
    ]
    shutil.rmtree(ROOT / "playbooks")
    for name, there in moments:
        declare(*([] if name == "it is gone again" else ["guest"]))
        if name == "it is gone again":
            lab("apply", "--yes")
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "-C", str(ROOT), "apply", "--yes", "--allow-destroy"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and not there():
            time.sleep(0.01)
        if process.poll() is None:
            for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            report["applies"] += 1
        process.wait()
        again = lab("apply", "--yes", "--allow-destroy")
        lost = [] if again.endswith("[0]") else [f"the next apply failed: {again}"]
        for words in (("plan", "--detailed-exitcode"), ("guest", "verify"), ("state", "check")):
            said = lab(*words)
            lost += [] if said.endswith("[0]") else [f"{words}: {said}"]
        report["lost"] += [f"killed when {name}: {x}" for x in [*lost, *always("then")]]
    declare()
    lab("apply", "--yes", "--allow-destroy")
    report["left"] = [Path("/etc/lab").exists(), accounts()]


def main(most: int) -> None:
    daemon = prepare()
    deeds = operations()
    for name in deeds:
        campaign(name, deeds, most)
    for name in ("guest gone", "access gone"):
        plainly(deeds[name])
    quiet()
    reverts(deeds, most or 40)
    plainly(deeds["access gone"])
    quiet()
    applies()
    daemon.terminate()
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]))
