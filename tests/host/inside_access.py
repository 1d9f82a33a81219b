"""Run inside the sandbox: the owner's sshd is changed, wrongly and rightly, and the owner always gets in."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from lab.adapters import ssh
from lab.adapters.ansible import perform
from lab.adapters.world import Machine
from lab.app import access as accesses
from lab.app import doctor
from lab.core.access_files import DROP_IN
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import differences
from lab.core.problem import Problems
from lab.kinds.access import Access
from tests.host.support import Context, Stage

LAB = Path("/home/owner/lab")
KEYS = Path("/root/keys")
report: dict[str, Any] = {}


def sh(command: str) -> str:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return f"{done.stdout}{done.stderr}[{done.returncode}]"


def key(name: str) -> str:
    KEYS.mkdir(exist_ok=True, mode=0o700)
    sh(f"ssh-keygen -q -t ed25519 -N '' -C {name} -f {KEYS}/{name}")
    return (KEYS / f"{name}.pub").read_text().strip()


def free() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def target(port: int, device: str, user: str = "owner") -> ssh.Target:
    quiet = ("-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
    return ssh.Target("127.0.0.1", port, user, str(KEYS / device), quiet)


def gets_in(port: int, device: str, user: str = "owner") -> bool:
    for _ in range(20):
        with contextlib.suppress(OSError):
            ssh.banner("127.0.0.1", port, 1)
            break
        time.sleep(0.05)
    return ssh.login(target(port, device, user))[1] == ""


def context(recorded: Any = None) -> Context:
    return Context(
        "access.studio",
        str(LAB),
        str(LAB / "state"),
        "/srv/store",
        home="/home/owner",
        facts={"access.studio": recorded},
    )


def apply(access: Access, action: Action = Action.UPDATE, recorded: Any = None, secrets: Any = None) -> Any:
    (step,) = access.steps(Change(Address("access.studio"), action, recorded=recorded), context(recorded))
    stage = Stage("access.studio", LAB, LAB / "state", Path("/srv/store"), secrets=secrets or {})
    return perform([step], [stage])[0]  # type: ignore[list-item]


class Opened:
    """As much of a Lab as the access verbs ask for."""

    def __init__(self, access: Access) -> None:
        self.declarations = {Address("access.studio"): access}
        self.state = LAB / "state"
        self.store = Path("/srv/store")
        self.head = {"lab": {"name": "studio"}}
        self.root = LAB


def main() -> None:
    faulthandler.dump_traceback_later(500, exit=True)
    sh("useradd -m -s /bin/bash owner; useradd -m -s /bin/bash other; ssh-keygen -A; mkdir -p /run/sshd")
    (LAB / "state").mkdir(parents=True)
    laptop, phone = key("laptop"), key("phone")
    own = key("own")
    Path("/home/owner/.ssh").mkdir(mode=0o700)
    Path("/home/owner/.ssh/authorized_keys").write_text(own + "\n")
    Path("/home/other/.ssh").mkdir(mode=0o700)
    Path("/home/other/.ssh/authorized_keys").write_text(own + "\n")
    sh("chown -R owner: /home/owner; chown -R other: /home/other")
    port = free()
    sh(
        f"sed -i '1i PidFile /run/sshd.pid' /etc/ssh/sshd_config; echo 'Port {port}' > /etc/ssh/sshd_config.d/99-old.conf"  # noqa: E501
    )
    daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-E", "/tmp/sshd.log"])
    before = {p: Path(p).read_bytes() for p in map(str, Path("/etc/ssh").rglob("*")) if Path(p).is_file()}
    report["gets in at first"] = gets_in(port, "own") and gets_in(port, "own", "other")

    good = Access(users=["owner"], devices={"laptop": laptop, "phone": phone}, sshd={"port": port}, confirm=0.4)
    patient = good.with_(confirm=5)
    told = apply(patient, Action.CREATE)
    report["applied"] = not isinstance(told, Exception) or str(told)
    seen = patient.observe(Machine(), context())
    report["as declared"] = [str(d) for d in differences(seen, patient.wanted(context()), partial=True)]
    report["devices and the old key get in"] = [gets_in(port, d) for d in ("laptop", "phone", "own")]
    report["who is not named does not"] = gets_in(port, "own", "other")
    password = sh(
        f"ssh -F none -p {port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o PubkeyAuthentication=no -o BatchMode=yes owner@127.0.0.1 true"  # noqa: E501
    )
    report["no password is asked for"] = "denied (publickey)" in password
    report["a change waits"] = accesses.pending() is not None
    report["three files and a group changed"] = sorted(p for p in seen["files"])
    sh("pkill -f '^sleep 300'")  # its time is over
    while accesses.pending():
        time.sleep(0.2)
    time.sleep(0.3)
    report["unconfirmed it went back"] = good.observe(Machine(), context()) is None and gets_in(port, "own", "other")

    told = apply(patient, Action.UPDATE, seen)
    report["applied again"] = not isinstance(told, Exception) or str(told)
    stale = _try(lambda: accesses.confirm(Opened(patient)))  # type: ignore[arg-type]
    report["no confirmation from here"] = stale
    os.environ["SSH_CONNECTION"] = "1"
    fresh = f"cd / && SSH_CONNECTION=x PYTHONPATH={os.environ['PYTHONPATH']} true"
    report["a fresh session"] = ssh.login(target(port, "laptop"), fresh)[1]
    report["an old session does not confirm"] = _try(lambda: accesses.confirm(Opened(patient)))  # type: ignore[arg-type]
    report["confirmed"] = accesses.confirm(Opened(patient), here=True)  # type: ignore[arg-type]
    waiting = accesses.pending() or {}
    report["the word is written"] = Path(waiting["confirmed"]).read_text() == waiting["word"]

    wrong = {
        "nobody may log in": good.with_(users=["nobodyhere"]),
        "a user without a shell": good.with_(users=["noshell"]),
        "a listen address that is none": good.with_(sshd={"port": port, "listen": ["not an address"]}),
        "rules with a stray newline": good.with_(sshd={"port": port, "listen": ["127.0.0.1\nDenyUsers owner"]}),
        "a deny smuggled in": good.with_(sshd={"port": port, "listen": ["127.0.0.1\nAuthenticationMethods password"]}),
        "a wrong cipher": good.with_(sshd={"port": port, "listen": ["127.0.0.1\nCiphers none-such"]}),
        "another main file": good.with_(sshd={"port": port, "passwords": True}),
        "a home that others may write": good,
        "root who may not": good.with_(users=["root"]),
        "a missing key type": good.with_(
            sshd={"port": port, "listen": ["127.0.0.1\nPubkeyAcceptedAlgorithms ssh-dss"]}
        ),
    }
    sh("useradd -m -s /usr/sbin/nologin noshell")
    outcomes = {}
    for name, access in wrong.items():
        main_file = Path("/etc/ssh/sshd_config").read_text()
        rules = Path(DROP_IN).read_bytes()
        if name == "another main file":
            Path("/etc/ssh/sshd_config").write_text(main_file.replace("Include ", "#Include "))
        if name == "a home that others may write":
            sh("mkdir -p /etc/lab/access/keys; chmod 777 /etc/lab/access/keys")
            access = good.with_(sshd={"port": port, "keep_alive": 30})
        told = apply(access)
        Path("/etc/ssh/sshd_config").write_text(main_file)
        sh("chmod 755 /etc/lab/access/keys")
        outcomes[name] = {
            "refused": isinstance(told, Exception),
            "why": str(told)[:300],
            "same rules": Path(DROP_IN).read_bytes() == rules,
            "gets in": gets_in(port, "laptop") and gets_in(port, "own"),
        }
    report["wrong"] = outcomes

    fewer = patient.with_(devices={"laptop": laptop})
    recorded = patient.observe(Machine(), context())
    report["one device less is one change"] = [
        d.field for d in differences(recorded or {}, fewer.wanted(context()), partial=True)
    ]
    told = apply(fewer, Action.UPDATE, recorded)
    report["only the other is out"] = [gets_in(port, "laptop"), gets_in(port, "phone")]
    Path(DROP_IN).write_text(
        Path(DROP_IN).read_text().replace("PasswordAuthentication no", "PasswordAuthentication yes")
    )
    seen = fewer.observe(Machine(), context(recorded)) or {}
    report["hand edit is seen"] = [d.field for d in differences(seen, fewer.wanted(context()), partial=True)]
    apply(fewer, Action.UPDATE, recorded)
    seen = fewer.observe(Machine(), context(recorded)) or {}
    report["and repaired"] = [d.field for d in differences(seen, fewer.wanted(context()), partial=True)]

    probe = accesses.probe(Opened(fewer), 5, target(port, "laptop"))  # type: ignore[arg-type]
    report["probe"] = {"rate": probe["rate"], "reuse": round(probe["first"] / probe["reused"], 2), "p95": probe["p95"]}
    report["probe of a wrong key"] = accesses.probe(Opened(fewer), 3, target(port, "phone"))["rate"]  # type: ignore[arg-type]
    report["doctor"] = broken(fewer, port, daemon)
    recorded = fewer.observe(Machine(), context())
    told = apply(fewer, Action.DESTROY, recorded)
    report["destroyed"] = not isinstance(told, Exception) or str(told)
    now = {p: Path(p).read_bytes() for p in map(str, Path("/etc/ssh").rglob("*")) if Path(p).is_file()}
    report["left or changed"] = sorted(p for p in {*before, *now} if before.get(p) != now.get(p))
    report["nothing left"] = [Path("/etc/lab").exists(), fewer.observe(Machine(), context())]
    tailnet()
    print(json.dumps(report, default=str))


def _try(call: Any) -> str:
    try:
        return str(call())
    except Problems as e:
        return e.problems[0].summary


def broken(access: Access, port: int, daemon: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Each link is broken in turn; the doctor names it."""

    def first(at: ssh.Target, one: Access = access) -> str:
        links = doctor.doctor(Opened(one), "access", at)["access"]  # type: ignore[arg-type]
        wrong = [x for x in links if x.wrong]
        return f"{wrong[0].name}: {wrong[0].wrong} | {wrong[0].do}" if wrong else "sound"

    out = {"sound": first(target(port, "laptop"))}
    out["wrong port"] = first(target(free(), "laptop"))
    sh("chmod 777 /home/owner/.ssh")
    out["bad permissions"] = first(target(port, "laptop"))
    sh("chmod 700 /home/owner/.ssh")
    out["missing key"] = first(target(port, "phone"))
    out["wrong name"] = first(ssh.Target("no-such-host.invalid", port, "owner"))
    stub("Stopped")
    os.environ["PATH"] = "/tmp/tailnet:" + os.environ["PATH"]
    out["tailnet down"] = first(target(port, "laptop"), access.with_(tailscale={"hostname": "studio"}))
    sh("usermod -s /usr/sbin/nologin owner")
    out["no shell"] = first(target(port, "laptop"))
    sh("usermod -s /bin/bash owner")
    daemon.terminate()
    daemon.wait()
    out["stopped sshd"] = first(target(port, "laptop"))
    return out


def stub(state: str) -> None:
    """A tailscale that records how it is called and remembers its preferences."""
    folder = Path("/tmp/tailnet")
    folder.mkdir(exist_ok=True)
    tool = folder / "tailscale"
    tool.write_text(
        "#!/bin/sh\n"
        f'case "$1" in status) echo \'{{"BackendState": "{state}", "Self": {{"DNSName": "studio.ts.net."}}}}\' ;;\n'
        "debug) cat /tmp/tailnet/prefs ;;\n"
        'up) echo "$@" >> /tmp/tailnet/calls; cat "$(echo "$*" | sed "s/.*file://")" > /tmp/tailnet/key; cp /tmp/tailnet/after /tmp/tailnet/prefs ;;\n'  # noqa: E501
        "esac\n"
    )
    tool.chmod(0o755)


def tailnet() -> None:
    stub("Running")
    prefs = {"Hostname": "old", "WantRunning": False, "CorpDNS": True}
    Path("/tmp/tailnet/prefs").write_text(json.dumps(prefs))
    after = {"Hostname": "studio", "AdvertiseTags": ["tag:lab"], "WantRunning": True, "CorpDNS": True, "RunSSH": True}
    Path("/tmp/tailnet/after").write_text(json.dumps(after))
    with_it = Access(
        users=["owner"],
        devices={"laptop": (KEYS / "laptop.pub").read_text().strip()},
        sshd={"port": free()},
        tailscale={"hostname": "studio", "tags": ["tag:lab"], "ssh": True, "auth": "env:TS"},
    )
    told = apply(with_it, Action.CREATE, secrets={"env:TS": "tskey-secret"})
    report["tailnet applied"] = not isinstance(told, Exception) or str(told)
    calls = Path("/tmp/tailnet/calls").read_text().splitlines()
    report["tailscale was called"] = [c.split("--auth-key=file:")[0].strip() for c in calls]
    report["the key came by file"] = [Path("/tmp/tailnet/key").read_text(), "tskey-secret" in calls[0]]
    seen = with_it.observe(Machine(), context()) or {}
    report["tailnet as declared"] = [str(d) for d in differences(seen, with_it.wanted(context()), partial=True)]
    apply(with_it, Action.UPDATE, seen, secrets={"env:TS": "tskey-secret"})
    report["called once"] = len(Path("/tmp/tailnet/calls").read_text().splitlines())


if __name__ == "__main__":
    main()
