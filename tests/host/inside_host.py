"""Run inside the sandbox: a laptop drives the host over a real sshd: access applied, confirmed, planned from afar."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.step import Play
from lab.kinds.guest import Guest
from tests.host.support import Context, readable

ROOT, LAPTOP, HERE = Path("/home/owner/lab"), Path("/root/laptop"), Path(__file__).parents[2]
report: dict[str, Any] = {}
PORT = 0


def sh(command: str, user: str = "", **env: str) -> str:
    argv = ["su", "-s", "/bin/bash", user, "-c", command] if user else ["bash", "-c", command]
    done = subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=180, env={**os.environ, **env}
    )
    return f"{done.stdout}{done.stderr}[{done.returncode}]"


def must(command: str) -> str:
    out = sh(command)
    assert out.endswith("[0]"), f"{command}: {out}"
    return out


def laptop(words: str) -> str:
    """`lab WORDS` on the laptop, whose ssh knows the key and the port."""
    return sh(f"cd {LAPTOP} && {sys.executable} -m lab {words}", LAB_SSH="ssh -F /root/ssh.conf", PYTHONPATH=str(HERE))


def prepare() -> subprocess.Popen[bytes]:
    global PORT
    must("apt-get install -y --no-install-recommends sudo >/dev/null; ssh-keygen -A >/dev/null; mkdir -p /run/sshd")
    must("useradd -m -s /bin/bash owner && echo 'owner ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/owner")
    readable()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        PORT = s.getsockname()[1]
    must(
        "ssh-keygen -q -t ed25519 -N '' -f /root/key; install -d -m 700 -o owner /home/owner/.ssh; "
        "install -m 600 -o owner /root/key.pub /home/owner/.ssh/authorized_keys"
    )
    (ROOT / "conf/access").mkdir(parents=True)
    (ROOT / "conf/file").mkdir()
    (ROOT / "conf/lab.yaml").write_text(
        "lab: {name: studio, id: 6f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42, store: /home/owner/store}\n"
    )
    (ROOT / "conf/file/motd.yaml").write_text("path: /home/owner/motd\ncontent: hello\n")
    key = Path("/root/key.pub").read_text().strip()
    (ROOT / "conf/access/studio.yaml").write_text(
        f"users: [owner]\ndevices: {{laptop: '{key}'}}\nsshd: {{port: {PORT}}}\nconfirm: 0.7\n"
    )
    tool = ROOT / ".venv/bin/lab"
    tool.parent.mkdir(parents=True)
    tool.write_text(f'#!/bin/sh\nPYTHONPATH={HERE} exec {sys.executable} -m lab "$@"\n')
    tool.chmod(0o755)
    must(f"cp -r {ROOT} {LAPTOP} && chown -R owner: /home/owner")
    (LAPTOP / "conf/host").mkdir()
    (LAPTOP / "conf/host/studio.yaml").write_text("ssh: owner@127.0.0.1\nfolder: ~/lab\n")
    (LAPTOP / "conf/host/away.yaml").write_text("ssh: owner@away\nfolder: ~/lab\n")
    Path("/root/ssh.conf").write_text(
        f"Host *\n  Port {PORT}\n  IdentityFile /root/key\n  IdentitiesOnly yes\n  BatchMode yes\n"
        "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        "Host away\n  HostName 127.0.0.1\n  ProxyCommand false\n"
    )
    config = Path("/etc/ssh/sshd_config")
    config.write_text("PidFile /run/sshd.pid\n" + config.read_text())
    Path("/etc/ssh/sshd_config.d/99-old.conf").write_text(f"Port {PORT}\n")
    daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-E", "/tmp/sshd.log"])
    answers()
    return daemon


def answers() -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", PORT), 1).close()
            return
        time.sleep(0.05)


def further() -> None:
    """The same playbook by hand, on a further host of an inventory, over ssh: a guest without a broker."""
    guest = Guest(keys=[Path("/root/key.pub").read_text().strip()], person="From afar")
    made = Context("guest.zed", str(ROOT), f"{ROOT}/state", "/srv/far", home="/home/owner")
    (play,) = guest.steps(Change(Address("guest.zed"), Action.CREATE), made)
    assert isinstance(play, Play)
    Path("/root/items.json").write_text(json.dumps([{"id": "guest.zed", **play.args, "broker": {}}]))
    variables = {
        "lab_hosts": "far", "lab_system": "linux", "ansible_python_interpreter": "/usr/bin/python3",
        "lab_plays": [{"role": "guest", "file": "/root/items.json", "become": True}],
    }  # fmt: skip
    Path("/root/vars.json").write_text(json.dumps(variables))
    Path("/root/inventory").write_text(
        f"far ansible_host=127.0.0.1 ansible_port={PORT} ansible_user=owner\n"
        "[all:vars]\nansible_ssh_common_args='-F /root/ssh.conf'\n"
    )
    run = f"cd {HERE}/playbooks && PATH={Path(sys.executable).parent}:$PATH ansible-playbook -i /root/inventory lab.yml"
    for name in ("a further host", "and again"):
        report[name] = sh(f"{run} -e @/root/vars.json", ANSIBLE_NOCOLOR="1")[-300:]
    report["made there"] = sh("getent passwd zed | cut -d: -f5; ls /etc/lab/guests/zed")


def main() -> None:
    daemon = prepare()
    report["plan from afar"] = laptop("plan --host studio --only file.motd")
    report["exit code from afar"] = laptop("plan --host=studio --only file.motd --detailed-exitcode")[-3:]
    report["apply from afar"] = laptop("apply --yes --host studio --only file.motd")
    report["written there"] = sh("stat -c %U /home/owner/motd; cat /home/owner/motd")
    report["ledger"] = [(ROOT / "state/ledger.sqlite").exists(), (LAPTOP / "state").exists()]
    report["an override"] = laptop('plan --host studio file.motd.content="it\'s {a: b} \\$x"')
    report["no such host"] = laptop("plan --host stdio")
    report["cannot be reached"] = laptop("plan --host away")
    report["access applied"] = laptop("apply --yes --host studio --only access.studio")
    answers()
    report["waits"] = Path("/etc/lab/access/pending").exists()
    report["confirmed"] = laptop("access confirm --host studio")
    for _ in range(160):
        if not Path("/etc/lab/access/pending").exists():
            break
        time.sleep(0.5)
    report["stays"] = [Path("/etc/lab/access/pending").exists(), laptop("plan --host studio --only access.studio")]
    report["doctor on the host"] = sh("cd /home/owner/lab && .venv/bin/lab doctor access", "owner")
    (LAPTOP / "conf/access/studio.yaml").write_text(
        (LAPTOP / "conf/access/studio.yaml").read_text() + "addresses: [127.0.0.1]\n"
    )
    must("rm -f /root/.ssh/known_hosts; mkdir -p -m 700 /root/.ssh; cp /root/key /root/.ssh/id_ed25519")
    report["a machine not known"] = laptop("doctor access")
    must(f"ssh-keyscan -p {PORT} 127.0.0.1 > /root/.ssh/known_hosts 2>/dev/null")
    report["a machine known"] = laptop("doctor access")
    must("rm /etc/ssh/ssh_host_*; ssh-keygen -A >/dev/null; kill -HUP $(cat /run/sshd.pid); sleep 0.5")
    answers()
    report["a machine made anew"] = laptop("doctor access")
    further()
    daemon.terminate()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
