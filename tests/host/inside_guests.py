"""Run inside the sandbox: guests are made, try what is forbidden beside what is allowed, and go without a trace."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import json
import os
import pwd
import re
import socket
import subprocess
import sys
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
from tests.host.support import Context, Stage, readable

LAB, STORE = Path("/home/owner/lab"), Path("/srv/lab/store")
report: dict[str, Any] = {"round": {}, "refused": {}}


def sh(command: str, user: str = "") -> str:
    argv = ["su", "-s", "/bin/bash", user, "-c", command] if user else ["bash", "-c", command]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    return f"{done.stdout}{done.stderr}[{done.returncode}]"


def must(command: str) -> str:
    out = sh(command)
    assert out.endswith("[0]"), f"{command}: {out}"
    return out


def key(name: str) -> str:
    path = Path(f"/root/keys/{name}")
    path.parent.mkdir(exist_ok=True, mode=0o700)
    must(f"ssh-keygen -q -t ed25519 -N '' -C {name} -f {path}")
    return path.with_suffix(".pub").read_text().strip()


def snapshot() -> dict[str, str]:
    """Every file a guest's coming and going may touch: type, mode, owner, access list and content."""
    out = {}
    skip = re.compile(
        r"/etc/.*-$|/var/spool/cron/atjobs/.SEQ|/etc/\.pwd\.lock|/etc/ld\.so\.cache|/home/owner/lab/state"
    )
    for top in ("/etc", "/home", "/srv", "/var/spool", "/var/mail", "/var/lib/lab"):
        for folder, folders, names in os.walk(top):
            folders[:] = [f for f in folders if f not in ("host", "dpkg", "apt", "docker")]
            for each in [folder, *(os.path.join(folder, n) for n in names)]:
                if skip.match(each) or not os.path.lexists(each):
                    continue
                s = os.lstat(each)
                acl = b""
                with contextlib.suppress(OSError):
                    acl = os.getxattr(each, "system.posix_acl_access", follow_symlinks=False)
                text = hashlib.sha256(Path(each).read_bytes()).hexdigest() if os.path.isfile(each) else ""
                out[each] = f"{s.st_mode:o} {s.st_uid}:{s.st_gid} {acl.hex()} {text}"
    return out


PORT = 0


def ssh(who: str, command: str, options: str = "", with_key: str = "", before: str = "") -> str:
    return sh(
        f"{before} timeout 20 ssh -F none -p {PORT} -i /root/keys/{with_key or who} -o IdentitiesOnly=yes -o BatchMode=yes "  # noqa: E501
        f"-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR {options} {who}@127.0.0.1 "
        + (f"'{command}'" if command else "")
    )


def prepare() -> None:
    global PORT
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
        PORT = s.getsockname()[1]
    must("ssh-keygen -A >/dev/null; mkdir -p /run/sshd")
    readable()


def serve() -> subprocess.Popen[bytes]:
    daemon = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-p", str(PORT), "-o", "ListenAddress=127.0.0.1", "-o", "MaxStartups=100",
         "-o", "PidFile=/run/sshd.pid", "-o", "X11Forwarding=yes", "-o", "LogLevel=VERBOSE"],
        stderr=open("/tmp/sshd.log", "wb"),  # noqa: SIM115
    )  # fmt: skip
    for _ in range(100):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", PORT), 1).close()
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


def hour(offset: int) -> str:
    return time.strftime("%H:%M", time.localtime(time.time() + offset * 3600))


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


def case(name: str, allowed: str, shows: str, tried: str, why: str) -> None:
    """A refusal counts only beside its positive control, and only for the expected reason."""
    report["refused"][name] = {
        "control": bool(re.search(shows, allowed, re.S)),
        "refused": bool(re.search(why, tried, re.S)),
        "allowed": allowed[-300:],
        "tried": tried[-300:],
        "expected": why,
    }


def refused() -> None:
    no = "Permission denied"
    marker = subprocess.Popen(["su", "owner", "-c", "exec sleep 7777"])
    time.sleep(0.2)
    pid = must("pgrep -u owner sleep").split()[0]
    login = ssh("ann", "id -un")

    def ann(command: str) -> str:
        return ssh("ann", command)

    def own(command: str) -> str:
        return sh(command, "owner")

    fine = r"\[0\]$"
    case("enter the owner's home", own("ls /home/owner"), "lab", ann("ls /home/owner"), no)
    case(
        "read a world-readable secret of the owner", own("cat ~/.secret"), "hunter2", ann("cat /home/owner/.secret"), no
    )
    case("read the ledger", own("cat ~/lab/state/ledger.db"), "ledger", ann(f"cat {LAB}/state/ledger.db"), no)
    case("read conf", own("cat ~/lab/conf/lab.yaml"), "studio", ann(f"cat {LAB}/conf/lab.yaml"), no)
    case("write conf", own("touch ~/lab/conf/x && rm ~/lab/conf/x"), fine, ann(f"touch {LAB}/conf/x"), no)
    case("read another guest's home", ssh("ben", "ls -a ~"), "bashrc", ann("ls /home/ben"), no)
    case(
        "read a model not given",
        ann(f"cat {STORE}/models/tiny/weights"),
        "of tiny",
        ann(f"cat {STORE}/models/other/weights"),
        no,
    )
    case(
        "read a blob behind a model not given",
        ann(f"cat {STORE}/models/tiny/link"),
        "blob of tiny",
        ann(f"cat {STORE}/blobs/ot/other"),
        no,
    )
    case("list the store", own(f"ls {STORE}"), "models", ann(f"ls {STORE}"), no)
    case("use an env not given", ann(f"{STORE}/envs/good/bin/tool"), "of good", ann(f"{STORE}/envs/bad/bin/tool"), no)
    case("write the store", ann(f"ls {STORE}/models/tiny"), "weights", ann(f"touch {STORE}/models/tiny/x"), no)
    case("change an env", ann(f"ls {STORE}/envs/good/bin"), "tool", ann(f"echo x >> {STORE}/envs/good/bin/tool"), no)
    folder = "/etc/lab/guests/ann"
    case(
        "write authorized_keys",
        ann(f"cat {folder}/authorized_keys"),
        "restrict",
        ann(f"echo x >> {folder}/authorized_keys"),
        no,
    )
    case("loosen their rules", ann(f"cat {folder}/rules"), "UNTIL", ann(f"echo >> {folder}/rules"), no)
    ann("mkdir -p -m 700 ~/.ssh")
    must("install -o ann -m 600 /root/keys/stranger.pub /home/ann/.ssh/authorized_keys")
    case("add a key of their own", login, "^ann", ssh("ann", "id -un", with_key="stranger"), r"denied \(publickey\)")
    sudo = "is not in the sudoers|password is required|a terminal is required"
    case("sudo", own("sudo -n id -u"), "^0", ann("sudo -n id"), sudo)
    case(
        "su to the owner",
        sh("su owner -c 'id -un'"),
        "owner",
        ann("su owner -c id"),
        "Authentication failure|must be run from a terminal",
    )
    case(
        "cron",
        own('echo "0 0 1 1 * true" | crontab - && crontab -l && crontab -r'),
        "true",
        ann('echo "* * * * * id" | crontab -'),
        "not allowed",
    )
    case(
        "at",
        own("echo true | at now + 1 year && atrm $(atq | cut -f1)"),
        "job",
        ann("echo id | at now + 1 minute"),
        "do not have permission",
    )
    case(
        "give a file to root",
        sh("touch /tmp/f && chown ann /tmp/f && rm /tmp/f"),
        fine,
        ann("touch ~/f && chown root ~/f"),
        "Operation not permitted",
    )
    case(
        "make another's program setuid",
        own("cp /bin/true ~/t && chmod u+s ~/t && rm ~/t"),
        fine,
        ann("chmod u+s /bin/true"),
        "Operation not permitted",
    )
    trace = "import ctypes,os;l=ctypes.CDLL(None,use_errno=True);r=l.ptrace(16,%s,0,0);print(r,os.strerror(ctypes.get_errno()))"  # noqa: E501
    python = "/usr/bin/python3 -c"
    case(
        "trace the owner's process",
        sh(f'{python} "{trace % pid}"'),
        "^0",
        ann(f'{python} "{trace % pid}"'),
        "-1 (Operation not permitted|No such process)",
    )
    case(
        "kill the owner's process",
        own(f"kill -0 {pid}"),
        fine,
        ann(f"kill -9 {pid}"),
        "Operation not permitted|No such process",
    )
    case(
        "see the owner's processes", own("pgrep -f 7777"), pid, ann("pgrep -f [7]777; ps aux | grep -c [7]777"), r"^0\n"
    )
    case(
        "read a process's memory",
        own(f"head -c 1 /proc/{pid}/environ | wc -c"),
        "1",
        ann(f"cat /proc/{pid}/environ"),
        f"{no}|No such file",
    )
    probe = f"-o ExitOnForwardFailure=yes -W 127.0.0.1:{PORT}"
    case(
        "forward a local port",
        ssh("owner", "", probe),
        "SSH-2.0",
        ssh("ann", "", probe),
        "administratively prohibited|stdio forwarding failed",
    )
    case(
        "forward a remote port",
        ssh("owner", "id -un", "-o ExitOnForwardFailure=yes -R 0:127.0.0.1:9"),
        "owner",
        ssh("ann", "id -un", "-o ExitOnForwardFailure=yes -R 0:127.0.0.1:9"),
        "remote port forwarding failed",
    )
    case(
        "forward a socket",
        ssh("owner", "id -un", "-o ExitOnForwardFailure=yes -R /tmp/own.sock:127.0.0.1:9"),
        "owner",
        ssh("ann", "id -un", "-o ExitOnForwardFailure=yes -R /tmp/ann.sock:127.0.0.1:9"),
        "forwarding failed",
    )
    agent = 'eval $(ssh-agent) >/dev/null; trap "kill $SSH_AGENT_PID" EXIT;'
    case(
        "forward an agent",
        ssh("owner", "echo ${SSH_AUTH_SOCK:-none}", "-A", before=agent),
        "/tmp/ssh",
        ssh("ann", "echo ${SSH_AUTH_SOCK:-none}", "-A", before=agent),
        "^none",
    )

    def rule(user: str, word: str) -> str:
        return sh(f"/usr/sbin/sshd -T -o X11Forwarding=yes -C user={user},host=h,addr=127.0.0.1 | grep -i '^{word} '")

    case("forward X11", rule("owner", "x11forwarding"), "yes", rule("ann", "x11forwarding"), "no")
    case(
        "make a tunnel",
        rule("owner", "disableforwarding"),
        "no",
        rule("ann", "disableforwarding") + rule("ann", "permittunnel"),
        "yes.*no",
    )
    only = "-o PubkeyAuthentication=no -o PreferredAuthentications=password"
    case(
        "log in with a password", ssh("owner", "id", only), "password", ssh("ann", "id", only), r"denied \(publickey\)"
    )
    ann('mkdir -p ~/.ssh; echo "touch ~/rc-ran" > ~/.ssh/rc')
    ssh("owner", "true")
    case("run ~/.ssh/rc", own("ls ~/rc-ran"), "rc-ran", ann("ls ~/rc-ran"), "No such file")
    case(
        "bring environment",
        ssh("ann", "env", "-o SetEnv=LC_X=y"),
        "LC_X=y",
        ssh("ann", "echo ${LD_PRELOAD:-none}", "-o SetEnv=LD_PRELOAD=x"),
        "^none",
    )
    forks = (
        "import os,time\\nn=0\\nfor i in range(%d):\\n if os.fork()==0: time.sleep(2);os._exit(0)\\n n+=1\\nprint(n)"
    )
    run = 'printf "%s" | /usr/bin/python3 -'
    case(
        "fork without bound",
        ann(run % (forks % 10)),
        "10",
        ann(run % (forks % 200)),
        "Resource temporarily unavailable|BlockingIOError",
    )
    time.sleep(2)
    case(
        "exceed memory", ann(f'{python} "bytearray(10**8)"'), fine, ann(f'{python} "bytearray(2*10**9)"'), "MemoryError"
    )
    case(
        "fill the disk with a file",
        ann("head -c 10M /dev/zero > ~/ok && rm ~/ok"),
        fine,
        ann("head -c 100M /dev/zero > ~/big; ls -s ~/big; rm -f ~/big"),
        "File size limit|File too large|65536",
    )
    case(
        "raise a limit",
        ann("ulimit -u 20 && echo lower"),
        "lower",
        ann("ulimit -u 5000"),
        "Operation not permitted|cannot modify",
    )
    case("dump core", ann("ulimit -c"), "^0", ann("ulimit -c unlimited"), "Operation not permitted|cannot modify")
    case("stay past expiry", login, "^ann", ssh("old", "id -un"), r"denied \(publickey\)|closed")
    case("log in outside their hours", login, "^ann", ssh("late", "id -un"), "you may log in from")
    case(
        "get a shell that was not given",
        ssh("kim", "lab guest list"),
        "Nothing has been opened",
        ssh("kim", "id; bash -i"),
        "runs .lab ....",
    )
    case(
        "chain a command to the one allowed",
        login,
        "^ann",
        ssh("kim", "lab guest list; id -un"),
        r"^(?!.*\nkim\n).*\[(127|126|1)\]$",
    )
    case("write the system's configuration", ann("cat /etc/passwd"), "root", ann("echo x >> /etc/passwd"), no)
    case("read password hashes", sh("head -1 /etc/shadow"), "root", ann("cat /etc/shadow"), no)
    case("install a package", sh("apt-get install -s tmux"), fine, ann("apt-get install -y tree"), f"{no}|are you root")
    case(
        "change their shell",
        sh("chsh -s /bin/bash ann"),
        fine,
        ann("chsh -s /bin/sh"),
        "PAM|Password|Authentication|failure",
    )
    case(
        "take a system port",
        sh(f'{python} "import socket;socket.socket().bind((\\"127.0.0.1\\",81))"'),
        fine,
        ann(f'{python} "import socket;socket.socket().bind((\\"127.0.0.1\\",81))"'),
        no,
    )
    case(
        "mount",
        sh("mount -t tmpfs none /mnt && umount /mnt"),
        fine,
        ann("mount -t tmpfs none /mnt"),
        f"{no}|must be superuser",
    )
    case(
        "apply",
        sh(f"cd {LAB} && {sys.executable} -m lab plan"),
        "studio|No changes",
        ann("lab apply --yes"),
        "is the owner.s",
    )
    sh("kill -9 " + pid)
    marker.kill()
    marker.wait()


if __name__ == "__main__":
    main()
