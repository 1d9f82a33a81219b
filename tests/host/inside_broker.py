"""Run inside the sandbox: the owner is no root; guests use `lab` through the broker, and try what is not theirs."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import pwd
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pexpect

from tests.host.support import readable

ROOT, STORE = Path("/home/owner/lab"), Path("/srv/lab/store")
SOCKET = "/var/lib/lab/guests.sock"
HERE = Path(__file__).parents[2]
PASSWORD = os.urandom(8).hex()
report: dict[str, Any] = {"refused": {}}
PORT = 0
ROOM = 3
"""Seconds after which a guest who asked too much may ask a dozen times again."""


def sh(command: str, user: str = "", timeout: float = 180) -> str:
    argv = ["su", "-s", "/bin/bash", user, "-c", command] if user else ["bash", "-c", command]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout)
    return f"{done.stdout}{done.stderr}[{done.returncode}]"


def must(command: str) -> str:
    out = sh(command)
    assert out.endswith("[0]"), f"{command}: {out}"
    return out


def owner(words: str) -> str:
    """`lab WORDS` as the owner, who has sudo and is not root."""
    return sh(f"PYTHONPATH={HERE} {sys.executable} -m lab -C {ROOT} {words}", "owner")


def apply(words: str, password: str = PASSWORD) -> str:
    """`lab apply WORDS` as the owner at a terminal, who is asked for sudo's password."""
    line = f"PYTHONPATH={HERE} {sys.executable} -m lab -C {ROOT} apply {words}"
    child = pexpect.spawn("su", ["-s", "/bin/bash", "owner", "-c", line], encoding="utf-8", timeout=240)
    out = ""
    if child.expect(["sudo's password: ", pexpect.EOF]) == 0:
        out = child.before or ""
        child.sendline(password)
        child.expect(pexpect.EOF)
    child.close()
    return out + str(child.before) + f"[{child.exitstatus}]"


def ssh(who: str, command: str) -> str:
    return sh(
        f"timeout 120 ssh -F none -p {PORT} -i /root/keys/{who} -o IdentitiesOnly=yes -o BatchMode=yes "
        f"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {who}@127.0.0.1 '{command}'"
    )


def raw(data: bytes, user: str = "ann", wait: float = 20) -> str:
    """What the socket answers to bytes sent by a user."""
    code = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX);s.settimeout(PATIENCE);s.connect(SOCKET);"
        "s.sendall(sys.stdin.buffer.read());s.shutdown(1);print(s.makefile().read())"
    )
    code = code.replace("PATIENCE", str(wait)).replace("SOCKET", repr(SOCKET))
    done = subprocess.run(
        ["su", "-s", "/bin/bash", user, "-c", f'/usr/bin/python3 -c "{code}"'], input=data, capture_output=True
    )
    return (done.stdout + done.stderr).decode(errors="replace")


def prepare() -> None:
    global PORT
    must("apt-get install -y --no-install-recommends sudo >/dev/null")
    must("useradd -m -s /bin/bash owner && chmod 755 /home/owner; useradd -m stranger")
    must("echo 'owner ALL=(ALL) ALL' > /etc/sudoers.d/owner; echo owner:" + PASSWORD + " | chpasswd")
    readable()
    for folder in ("conf/guest", "conf/experiment", "conf/model", "keys", "src"):
        (ROOT / folder).mkdir(parents=True)
    (STORE).mkdir(parents=True)
    Path("/root/keys").mkdir(mode=0o700)
    for name in ("ann", "kim", "owner", "gone"):
        must(f"ssh-keygen -q -t ed25519 -N '' -C {name} -f /root/keys/{name}")
        (ROOT / f"keys/{name}.pub").write_text(Path(f"/root/keys/{name}.pub").read_text())
    (ROOT / "conf/lab.yaml").write_text(
        f"lab: {{name: studio, id: 6f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42, store: {STORE}}}\n"
        "resources: {guest: '*', model: '*', experiment: '*'}\n"
    )
    (ROOT / "weights").write_text("tiny weights\n")
    write("model/tiny", "path: weights\n")
    write("model/other", "path: weights\n")
    (ROOT / "src/train.py").write_text(
        "import lab.sdk, os\n\n\ndef main(lr: float = 0.1, steps: int = 3):\n"
        "    for n in range(steps):\n        lab.sdk.log({'loss': lr / (n + 1)}, step=n)\n"
        "    print('trained as', os.getuid(), 'with', lr)\n"
    )
    write("experiment/train", "call: train:main\npath: [src]\nparams: {lr: 0.1, steps: 3}\nmetrics: [loss]\n")
    (ROOT / "look.sh").write_text("cat $1/*; id -un; sleep ${2:-0}\n")
    write(
        "experiment/look",
        "command: 'sh look.sh {models.m} {wait}'\nparams: {wait: 0}\nmodels: {m: tiny}\nwhen: manual\n",
    )
    write("experiment/hidden", "command: 'cat {models.m}'\nmodels: {m: other}\nwhen: manual\n")
    eat = "import os, time; os.fork(); os.fork(); x = bytearray(300 * 10**6); time.sleep(60)"
    write("experiment/eat", f"command: ['/usr/bin/python3', -c, '{eat}']\nwhen: manual\nsample: 0.2\n")
    may = "[experiment.train, experiment.look, experiment.eat, model.tiny]"
    write("guest/ann", f"keys: [keys/ann.pub]\nmay: {may}\nlimits: {{memory: 700MB, disk: 50MB}}\n")
    write("guest/kim", "keys: [keys/kim.pub]\nshell: false\nmay: [experiment.train]\nhome: keep\n")
    must(f"chown -R owner: /home/owner {STORE.parent}")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        PORT = s.getsockname()[1]
    must("ssh-keygen -A >/dev/null; mkdir -p /run/sshd")


def write(name: str, text: str) -> None:
    (ROOT / f"conf/{name}.yaml").write_text(text)


def serve() -> subprocess.Popen[bytes]:
    daemon = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-p", str(PORT), "-o", "ListenAddress=127.0.0.1", "-o", "MaxStartups=100",
         "-o", "PidFile=/run/sshd.pid"],
        stderr=open("/tmp/sshd.log", "wb"),  # noqa: SIM115
    )  # fmt: skip
    for _ in range(100):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", PORT), 1).close()
            return daemon
        time.sleep(0.05)
    raise AssertionError("sshd does not answer")


def case(name: str, allowed: str, shows: str, tried: str, why: str) -> None:
    """A refusal counts only beside its positive control, and only for the expected reason."""
    report["refused"][name] = {
        "control": bool(re.search(shows, allowed, re.S)), "refused": bool(re.search(why, tried, re.S)),
        "allowed": allowed[-400:], "tried": tried[-400:],
    }  # fmt: skip


def main() -> None:
    faulthandler.dump_traceback_later(1100, exit=True)
    prepare()
    daemon = serve()
    made = ROOT / "state"
    report["nobody there for sudo"] = owner("apply --yes --only guest.kim")
    report["a wrong password"] = apply("--yes --only guest.kim", "wrong")
    report["under sudo"] = sh(
        f"echo {PASSWORD} | sudo -S env PYTHONPATH={HERE} {sys.executable} -m lab -C {ROOT} apply --yes "
        "--only guest.kim",
        "owner",
    )
    must(f"chown -R owner: {ROOT} {STORE}")
    report["applied"] = apply("--yes --exclude 'experiment.*'")
    assert report["applied"].endswith("[0]"), report
    report["password in sight"] = sh(f"grep -rls {PASSWORD} {ROOT} /var/lib/lab /etc/lab /tmp; true")
    report["nothing to do"] = owner("plan --only 'guest.*'")
    works()
    before = expires()
    forbidden()
    ends(before)
    tells()
    uid = pwd.getpwnam("ann").pw_uid
    for name in ("ann", "kim"):
        (ROOT / f"conf/guest/{name}.yaml").unlink()
    report["removed"] = apply("--yes --allow-destroy --only 'guest.*'")
    report["left"] = [
        p
        for p in ("/var/lib/lab", "/etc/lab", "/etc/sudoers.d/zz-lab-guests", "/etc/profile.d/lab-guests.sh")
        if os.path.exists(p)
    ]
    report["processes left"] = sh(f"pgrep -u {uid}; pgrep -f 'guest [s]erve'")
    report["kept home"] = sh("stat -c '%U %a' /home/kim; ls /home/kim/lab/runs | wc -l")
    report["archived"] = sh(f"tar tzf {made}/guests/ann-*.tar.gz | grep -c result.json")
    daemon.terminate()
    print(json.dumps(report))


def works() -> None:
    """What is opened to a guest."""
    report["list"] = ssh("ann", "lab list")
    report["help"] = ssh("ann", "lab")
    report["run"] = ssh("ann", "lab guest run train lr=0.5")
    report["run of another module"] = ssh("ann", "lab run look")
    report["without a shell"] = ssh("kim", "lab run train")
    report["runs"] = ssh("ann", "lab runs")
    report["logs"] = ssh("ann", "lab logs train")
    report["by su"] = sh("su - ann -c 'lab envs; lab list' </dev/null")
    out = ssh("ann", "lab run look wait=60 -d")
    run = out.split()[0]
    report["in the background"] = out
    report["outlives the session"] = ssh("ann", f"lab show {run} | head -1")
    report["log of one"] = ssh("ann", f"lab logs {run}")
    report["stopped"] = ssh("ann", f"lab stop {run}")
    report["runs are the guest's"] = sh("stat -c %U /home/ann/lab/runs/*/result.json | sort -u")
    report["too much memory"] = ssh("ann", "lab run eat")
    report["owner sees"] = owner("guest log ann")


def forbidden() -> None:
    fine = ssh("ann", "lab list")
    run = ssh("ann", "lab run look")
    for words, why in {
        "apply --yes": "is the owner.s.*never change the lab", "plan": "is the owner.s", "destroy": "is the owner.s",
        "lock": "is the owner.s", "gc": "is the owner.s", "sql x": "is the owner.s", "import x": "is the owner.s",
        "guest serve": "is the owner.s", "aply": "no verb.*\\[1\\]",
    }.items():  # fmt: skip
        case(f"lab {words}", fine, r"experiment.train.*\[0\]", ssh("ann", f"lab {words}"), why)
    case("run what is not opened", run, r"tiny weights\nann", ssh("ann", "lab run hidden"), "not opened to you")
    case("run what is not there", run, "tiny", ssh("ann", "lab run nothing"), "not opened to you")
    for word in ("command=id", "env=other", "experiment.look.command=id", "models.m=other", "environ.X=1", "+x=1",
                 "model.tiny.path=/etc/passwd", "~guest.kim", "lab.store=/tmp"):  # fmt: skip
        case(f"set {word}", run, "tiny", ssh("ann", f"lab run look {word}"), "not yours to change")
    case("read a variable of the owner", run, "tiny", ssh("ann", r"lab run look wait=\${oc.env:HOME}"), "plain value")
    case("run by a flag", run, "tiny", ssh("ann", "lab run look --tag x=y"), "takes no --tag")
    case("see another's resource", fine, "model.tiny", ssh("ann", "lab show model.other"), "no run|no such|matches")
    case("a stranger asks", raw(b'{"words": ["list"]}\n'), "train", raw(b'{"words": ["list"]}\n', "stranger"), "denied")
    case(
        "say to be another",
        raw(b'{"words": ["log"], "name": "kim", "uid": 0}\n'),
        "ann",
        raw(b'{"words": ["log"], "name": "kim", "uid": 0}\n'),
        r"^(?!.*\d  kim )",
    )
    case("end the broker", raw(b'{"ask": "version"}\n'), "version", raw(b'{"ask": "end"}\n'), "no command")
    case("ask at length", raw(b'{"words": ["list"]}\n'), "train", raw(b'{"words": ["' + b"x" * 70000), "longer than")
    case("ask nonsense", raw(b'{"words": ["list"]}\n'), "train", raw(b"\x00\xff{]\n"), "no JSON")
    case("ask for a number", raw(b'{"words": ["list"]}\n'), "train", raw(b'{"words": 7}\n'), "no command")
    case(
        "a word too long",
        raw(b'{"words": ["list"]}\n'),
        "train",
        raw(b'{"words": ["%s"]}\n' % (b"y" * 5000)),
        "too long",
    )
    case("use the broker's start", sh("su ann -s /bin/bash -c id"), "ann", ssh("ann", "sudo -n -u kim /etc/lab/start"),
         "not allowed|password is required|not in the sudoers")  # fmt: skip
    case("take the socket's place", sh("ls /var/lib/lab", "owner"), "guests.sock",
         ssh("ann", "rm -f /var/lib/lab/guests.sock; ls /var/lib/lab"), "Permission denied")  # fmt: skip
    case("change the code they run", ssh("ann", "ls /var/lib/lab/kit/lab/runs/guest.py"), r"\[0\]",
         ssh("ann", "echo x >> /var/lib/lab/kit/lab/runs/guest.py"), "Permission denied")  # fmt: skip
    case("read the audit log", sh(f"head -c 10 {ROOT}/state/audit.jsonl"), "at",
         ssh("ann", f"cat {ROOT}/state/audit.jsonl"), "Permission denied")  # fmt: skip
    case("really apply", owner("plan --only guest.ann"), "No changes|as declared",
         sh(f"cd /tmp && PYTHONPATH={HERE} {sys.executable} -m lab -C /tmp/copy apply --yes", "ann")
         if must(f"cp -r {ROOT} /tmp/copy && rm -rf /tmp/copy/state && chown -R ann /tmp/copy") else "",
         "guests may not do this.*lab-guests")  # fmt: skip
    time.sleep(ROOM)
    flood = raw(b'{"words": ["list"]}\n')
    asking = (
        "import socket\nfor n in range(150):\n s = socket.socket(socket.AF_UNIX)\n"
        f' s.connect({SOCKET!r})\n s.sendall(b\'{{"words": ["log"]}}\\n\')\n print(s.makefile().read(300))\n'
    )
    Path("/tmp/asking.py").write_text(asking)
    told = sh("/usr/bin/python3 /tmp/asking.py", "ann")
    case("ask without end", flood, "train", told, "too many questions")
    must("rm -rf /tmp/copy")
    time.sleep(ROOM)


def expires() -> str:
    """The time of one whose program runs on is over; what their rights were."""
    rights = Path("/etc/lab/guests/kim/rights.json")
    before = rights.read_text()
    rights.write_text(json.dumps({**json.loads(before), "expires": "2020-01-01"}))
    for _ in range(10):  # the broker may end the very session that asks
        report["over"] = ssh("kim", "lab list")
        if "your access ended" in report["over"]:
            break
    must("su kim -s /bin/bash -c 'setsid sleep 999 >/dev/null 2>&1 &'")
    return before


def ends(before: str) -> None:
    """What ends of itself: a full account, and one whose time is over."""
    must("su ann -s /bin/bash -c 'head -c 60M /dev/zero > ~/big'")
    report["over their disk"] = ssh("ann", "lab run look")
    must("rm /home/ann/big")
    for _ in range(240):
        if sh("pgrep -u kim").endswith("[1]"):
            break
        time.sleep(0.5)
    report["ended when their time was over"] = sh("pgrep -u kim")
    Path("/etc/lab/guests/kim/rights.json").write_text(before)


def tells() -> None:
    report["log"] = owner("guest log ann")
    report["log of all"] = owner("guest log")
    report["verify"] = owner("guest verify")
    log = ROOT / "state/audit.jsonl"
    lines = log.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if '"who": "ann"' in line)
    altered = lines[at].replace('"who": "ann"', '"who": "kim"')
    log.write_text("\n".join([*lines[:at], altered, *lines[at + 1 :]]) + "\n")
    report["tampered"] = owner("guest verify")
    log.write_text("\n".join(lines[:-1]) + "\n")
    report["cut"] = owner("guest verify")
    log.write_text("\n".join(lines) + "\n")
    must(f"chown owner {log}")
    sh("pkill -f 'guest [s]erve'")
    for _ in range(50):
        if sh("pgrep -f 'guest [s]erve'").endswith("[1]"):
            break
        time.sleep(0.1)
    report["without a broker"] = ssh("ann", "lab list")
    report["and told"] = owner("doctor guest")
    report["its absence is seen"] = owner("plan --only guest.ann")
    report["and mended"] = apply("--yes --only guest.ann")[-200:] + ssh("ann", "lab list")


if __name__ == "__main__":
    main()
