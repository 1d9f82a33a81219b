"""What a guest may not do, each tried and refused beside a positive control. Runs inside the guests' sandbox."""

from __future__ import annotations

import re
import subprocess
import sys
import time

from tests.host import guest_tools
from tests.host.guest_tools import LAB, STORE, must, report, sh, ssh


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
    probe = f"-o ExitOnForwardFailure=yes -W 127.0.0.1:{guest_tools.PORT}"
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
