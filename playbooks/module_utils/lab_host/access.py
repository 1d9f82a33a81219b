# SPDX-License-Identifier: Apache-2.0
"""sshd changed without locking anyone out, and the tailnet."""

from __future__ import annotations

import ctypes
import grp
import json
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time

from . import files, services
from .machine import Failed

DROP_IN = "/etc/ssh/sshd_config.d/20-lab-access.conf"
MAIN = "/etc/ssh/sshd_config"
FOLDER = "/etc/lab/access"
KEYS = FOLDER + "/keys"
SSHD = "/usr/sbin/sshd"


def members(machine, group, names=(), state="present"):
    """A group has exactly these members, or is not there."""
    try:
        is_ = set(grp.getgrnam(group).gr_mem)
    except KeyError:
        is_ = None
    darwin = platform.system() == "Darwin"
    if state == "absent":
        if is_ is not None:
            machine.run(*(["dseditgroup", "-o", "delete", group] if darwin else ["groupdel", group]))
        return
    for name in names:
        try:
            pwd.getpwnam(name)
        except KeyError:
            raise Failed(f"there is no account {name}", "name accounts that exist in `users`") from None
    if is_ is None:
        machine.run(*(["dseditgroup", "-o", "create", group] if darwin else ["groupadd", "--system", group]))
    if is_ is None or is_ != set(names):
        if darwin:
            for name in sorted(set(names) - (is_ or set())):
                machine.run("dseditgroup", "-o", "edit", "-a", name, "-t", "user", group)
            for name in sorted((is_ or set()) - set(names)):
                machine.run("dseditgroup", "-o", "edit", "-d", name, "-t", "user", group)
        else:
            machine.run("gpasswd", "--members", ",".join(names), group)


def sshd(machine, rules, keys, group, names, user, expect, minutes, confirmed, old=()):
    """sshd goes by these rules, keys and members: checked, tried by a real login, and put back unless confirmed.

    Any of the three can lock the owner out, so they change together and return together. `names` None leaves the group.
    """
    wanted = {DROP_IN: rules, **{k["path"]: k["content"] for k in keys}, **dict.fromkeys(old)}
    before = {path: content(path) for path in wanted}
    were = sorted(grp.getgrnam(group).gr_mem) if has_group(group) else None
    changed = [path for path in wanted if before[path] != wanted[path]]
    if names is not None and were != sorted(names):
        changed.append(group)
    cut = pending() if not machine.check else {}
    if cut and content(cut["confirmed"]) == cut["word"]:
        disarm()  # what waits was confirmed: it is what a later change goes back to
        cut = {}
    if not changed and cut.get("tried", True):
        for path in wanted:
            files.attributes(machine, path, "0644", "root", None)
        return
    if machine.check:
        for each in changed:
            machine.note(f"changed {each}")
        return
    refused = refusal(machine, rules)
    if refused:
        raise Failed(f"sshd refuses these rules: {refused}", "mend the declaration; sshd is as it was")
    # First of all: from here on it goes back by itself, also where this process is killed or the machine stops.
    arm(before, group if names is not None else "", were, minutes, confirmed, machine)
    try:
        if names is not None:
            members(machine, group, names)
        for path in changed:
            if path in wanted:
                machine.note(f"changed {path}")
                put(path, wanted[path])
        refused = files.sshd(machine)
        if refused:
            raise Failed(f"sshd refuses these rules: {refused}", "mend the declaration; sshd is as it was")
        in_force(machine, expect)
        trial(user)
    except BaseException:
        for path, text in before.items():
            put(path, text)
        if names is not None and has_group(group):
            members(machine, group, were or (), state="present" if were is not None else "absent")
        if cut:
            left = max(0.05, (cut["until"] - time.time()) / 60)
            arm(before, "", None, left, confirmed, machine, tried=cut.get("tried", True))
        else:
            disarm()
        raise
    services.reload(machine, "ssh.service", pid_file="/run/sshd.pid")
    arm(before, group if names is not None else "", were, minutes, confirmed, machine, tried=True)


def refusal(machine, rules):
    """Why sshd would refuse its configuration with these rules, before it has them; empty where it would not."""
    folder = FOLDER + "/check"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, mode=0o700)
    try:
        for name in os.listdir(os.path.dirname(DROP_IN)):
            if name.endswith(".conf") and name != os.path.basename(DROP_IN):
                shutil.copy(os.path.join(os.path.dirname(DROP_IN), name), folder)
        files.place(os.path.join(folder, os.path.basename(DROP_IN)), rules.encode(), "0600")
        text = content(MAIN) or ""
        files.place(folder + "/main", text.replace(os.path.dirname(DROP_IN), folder).encode(), "0600")
        return files.sshd(machine, "-f", folder + "/main")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def has_group(name):
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def content(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as f:
        return f.read()


def put(path, text):
    """A file with this text, or none."""
    if text is not None:
        files.place(path, text.encode(), "0644")
    elif os.path.exists(path):
        os.unlink(path)


def in_force(machine, expect):
    """What sshd says of itself is what was declared."""
    status, out, _err = machine.ask(SSHD, "-T")
    if status:
        return
    says = {}
    for text in out.splitlines():
        word, _, value = text.partition(" ")
        says.setdefault(word, []).append(value)
    for word, value in expect.items():
        if value not in says.get(word, []):
            raise Failed(
                "sshd still says {} {}".format(word, " ".join(says.get(word, ["nothing"]))),
                "let /etc/ssh/sshd_config begin with `Include /etc/ssh/sshd_config.d/*.conf`; sshd is as it was",
            )


def trial(user):
    """A real login by key, on another port, under the new rules; nothing of it stays."""
    keys = os.path.join(KEYS, user)
    held = ""
    if os.path.exists(keys):
        with open(keys, encoding="utf-8") as f:
            held = f.read()
    folder = FOLDER + "/trial"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, mode=0o700)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    daemon = None
    try:
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder + "/key")
        with open(folder + "/key.pub", encoding="utf-8") as f:
            files.place(keys, (held + "restrict " + f.read()).encode(), "0644")
        daemon = subprocess.Popen(
            [SSHD, "-D", "-e", "-p", str(port), "-o", "ListenAddress=127.0.0.1:" + str(port), "-o", "PidFile=none"],
            stderr=open(folder + "/log", "wb"), stdin=subprocess.DEVNULL, preexec_fn=dies_with_us,  # noqa: SIM115
        )  # fmt: skip
        said = login(user, port, folder)
        if said:
            with open(folder + "/log", encoding="utf-8", errors="replace") as f:
                log = [x.strip() for x in f if user in x or "refused" in x.lower() or "not allowed" in x]
            raise Failed(
                f"{user} could not log in under the new rules: {(log or [said])[-1]}",
                "mend the declaration; sshd is as it was",
            )
    finally:
        if daemon:
            daemon.terminate()
            daemon.wait()
        if held:
            files.place(keys, held.encode(), "0644")
        elif os.path.exists(keys):
            os.unlink(keys)
        shutil.rmtree(folder, ignore_errors=True)


def dies_with_us():
    """Linux ends this process when its parent ends, however that does."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def login(user, port, folder):
    """Why a login fails; empty where it works."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    done = subprocess.run(
        ["ssh", "-F", "none", "-p", str(port), "-i", folder + "/key", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
         "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
         "-o", "ConnectTimeout=10", user + "@127.0.0.1", "true"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)


REVERT = """#!/bin/sh
# Written by Lab: puts sshd back unless the change was confirmed from a fresh session.
sleep {seconds}
grep -qs {word} {token} || exit 0
if [ "$(cat {confirmed} 2>/dev/null)" != "{word}" ]; then
{back}
  if [ -d /run/systemd/system ]; then systemctl reload-or-try-restart ssh.service
  elif [ -r /run/sshd.pid ]; then kill -HUP "$(cat /run/sshd.pid)"; fi
  logger -t lab -p auth.warning "sshd was put back: nobody ran lab access confirm" 2>/dev/null
fi
rm -rf {token} {before} {confirmed}
"""


def pending():
    """What waits for a confirmation, `{word, at, until, confirmed, tried}`; empty where nothing does."""
    try:
        with open(FOLDER + "/pending", encoding="utf-8") as f:
            found = json.load(f)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and {"word", "until", "confirmed"} <= set(found) else {}


def disarm():
    """Nothing waits: all is as it was before."""
    for path in (FOLDER + "/pending", FOLDER + "/revert"):
        if os.path.exists(path):
            os.unlink(path)
    shutil.rmtree(FOLDER + "/before", ignore_errors=True)


def arm(before, group, were, minutes, confirmed, machine, tried=False):
    """From now on what was returns after some minutes, unless the word in the token stands in `confirmed` by then.

    A change on top of an unconfirmed one goes back to what was last confirmed: that is in `before` already.
    """
    folder, token, script = FOLDER + "/before", FOLDER + "/pending", FOLDER + "/revert"
    os.makedirs(FOLDER, mode=0o755, exist_ok=True)
    if not os.path.exists(token):
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder, mode=0o700)
        back = []
        for n, (path, text) in enumerate(sorted(before.items())):
            back.append(f"  rm -f {quote(files.beside(path))}")
            if text is None:
                back.append(f"  rm -f {quote(path)}")
            else:
                files.place(f"{folder}/{n}", text.encode(), "0644")
                back.append(f"  cp -p {folder}/{n} {quote(path)}")
        if group and platform.system() != "Darwin":
            back.append(
                "  gpasswd --members {} {}".format(quote(",".join(were)), group)
                if were is not None
                else "  groupdel " + group
            )
        files.place(folder + "/back", "\n".join(back).encode(), "0600")
    word = secrets.token_hex(8)
    now = time.time()
    text = {"word": word, "at": now, "until": now + minutes * 60, "confirmed": confirmed, "tried": tried}
    files.place(token, json.dumps(text).encode(), "0644")
    body = REVERT.format(
        seconds=int(minutes * 60), token=token, before=folder, back=content(folder + "/back"),
        confirmed=quote(confirmed), word=word,
    )  # fmt: skip
    files.place(script, body.encode(), "0700")
    if services.systemd():
        machine.ask("systemctl", "stop", "lab-access-revert.service")
        machine.ask("systemd-run", "--unit=lab-access-revert", "--collect", script)
    else:
        subprocess.Popen(
            [script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, cwd="/",
        )  # fmt: skip
    machine.facts["confirm_by"] = text["until"]


def quote(path):
    return "'" + path.replace("'", "'\\''") + "'"


def tailscale(machine, flags, wanted, auth_file=""):
    """The machine is in the tailnet under these preferences."""
    status, out, _err = machine.ask("tailscale", "debug", "prefs")
    if status == 127:
        raise Failed("tailscale is not installed", "install it from tailscale.com, or leave `tailscale:` out")
    if status == 0 and preferences(json.loads(out)) == {**preferences(json.loads(out)), **wanted}:
        return
    auth = ["--auth-key=file:" + auth_file] if auth_file else []
    machine.run(
        "tailscale", "up", "--reset", *flags, *auth, said="tailscale up " + " ".join(flags),
        do="run `tailscale up` once by hand, or declare `auth:`",
    )  # fmt: skip


def preferences(prefs):
    """What of `tailscale debug prefs` is declared."""
    return {
        "hostname": prefs.get("Hostname") or "",
        "tags": sorted(prefs.get("AdvertiseTags") or []),
        "ssh": bool(prefs.get("RunSSH")),
        "accept_routes": bool(prefs.get("RouteAll")),
        "accept_dns": bool(prefs.get("CorpDNS")),
        "routes": sorted(prefs.get("AdvertiseRoutes") or []),
        "running": bool(prefs.get("WantRunning")),
    }
