"""Access files: sshd's drop-in, the owner's keys, and what a client device is given, as text. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

DROP_IN = "/etc/ssh/sshd_config.d/20-lab-access.conf"
KEYS = "/etc/lab/access/keys"
"""One root-owned file of keys per account, read beside the account's own."""
GROUP = "lab-owners"
GUESTS = "lab-guests"


def drop_in(
    *, port: int, passwords: bool, root: bool, listen: Iterable[str], only: bool, keep_alive: int, forwarding: bool
) -> str:
    """sshd's rules for everyone who is no guest."""
    lines = [
        "# Written by Lab. It is tried on another port first, and put back unless it is confirmed.",
        f"Port {port}",
        *(f"ListenAddress {address}" for address in listen),
        "PubkeyAuthentication yes",
        f"AuthorizedKeysFile .ssh/authorized_keys {KEYS}/%u",
        f"PasswordAuthentication {'yes' if passwords else 'no'}",
        f"KbdInteractiveAuthentication {'yes' if passwords else 'no'}",
        "PermitEmptyPasswords no",
        f"PermitRootLogin {'prohibit-password' if root else 'no'}",
        "MaxAuthTries 4",
        "LoginGraceTime 30",
        "LogLevel VERBOSE",
        f"AllowTcpForwarding {'yes' if forwarding else 'no'}",
        "X11Forwarding no",
        f"ClientAliveInterval {keep_alive}",
        "ClientAliveCountMax 10",
    ]
    if only:
        lines.append(f"AllowGroups {GROUP} {GUESTS}" + (" root" if root else ""))
    return "\n".join(lines) + "\n"


def expectations(passwords: bool, root: bool, port: int) -> dict[str, str]:
    """What `sshd -T` must say once the drop-in is in force: a main configuration that does not read it would not."""
    return {
        "passwordauthentication": "yes" if passwords else "no",
        "permitrootlogin": "without-password" if root else "no",
        "port": str(port),
    }


def client(
    name: str, addresses: Iterable[str], user: str, port: int, identity: str, keep_alive: int, mosh: bool = False
) -> str:
    """A part of `~/.ssh/config`: the first address that answers is used, later connections share the first one."""
    blocks = []
    for n, address in enumerate(addresses):
        host = name if n == 0 else f"{name}-{n + 1}"
        blocks.append(
            f"Host {host}\n    HostName {address}\n    User {user}\n    Port {port}\n"
            + (f"    IdentityFile {identity}\n    IdentitiesOnly yes\n" if identity else "")
            + f"    ServerAliveInterval {keep_alive}\n    ServerAliveCountMax 10\n    TCPKeepAlive yes\n"
            "    ControlMaster auto\n    ControlPath ~/.ssh/lab-%C\n    ControlPersist 10m\n"
            "    Compression no\n    ForwardAgent no\n"
        )
    tail = f"\n# A session that outlives the connection:  ssh -t {name} tmux new -A -s lab\n"
    return "# Written by `lab access client`. Add it to ~/.ssh/config on the device.\n" + "\n".join(blocks) + tail


TAILNET = {
    "acls": list, "grants": list, "groups": dict, "hosts": dict, "tagOwners": dict, "autoApprovers": dict, "ssh": list,
    "tests": list, "sshTests": list, "nodeAttrs": list, "postures": dict, "defaultSrcPosture": list, "derpMap": dict,
    "disableIPv4": bool, "OneCGNATRoute": str, "randomizeClientPort": bool, "ipsets": dict,
}  # fmt: skip
"""Sections of a tailnet policy file and what each is (tailscale.com/kb/1337/policy-syntax)."""
RULES = {
    "acls": ({"action", "src", "dst"}, {"proto", "srcPosture"}),
    "grants": ({"src", "dst"}, {"ip", "app", "srcPosture", "via"}),
    "ssh": (
        {"action", "src", "dst", "users"},
        {"checkPeriod", "acceptEnv", "recorder", "enforceRecorder", "srcPosture"},
    ),
}
"""Section → (fields each rule must have, fields it may have)."""


def hujson(text: str) -> Any:
    """JSON with comments and trailing commas, as tailnet policies are written; ValueError where it is none."""
    words = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.S)
    bare = words.sub(lambda m: m[0] if m[0].startswith('"') else " ", text)
    return json.loads(re.sub(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', lambda m: m[1] or "", bare))


def policy_faults(text: str) -> Iterator[str]:
    """What is wrong with a tailnet policy, in words; nothing where it is sound."""
    try:
        policy = hujson(text)
    except ValueError as e:
        yield f"it is no HuJSON: {e}"
        return
    if not isinstance(policy, Mapping):
        yield "it is no object"
        return
    for key, value in policy.items():
        if key not in TAILNET:
            yield f"no section is called `{key}`"
        elif not isinstance(value, TAILNET[key]):
            yield f"`{key}` is no {TAILNET[key].__name__}"
    groups, owned = set(policy.get("groups") or ()), set(policy.get("tagOwners") or ())
    for section, (must, may) in RULES.items():
        for n, rule in enumerate(policy.get(section) or ()):
            if not isinstance(rule, Mapping):
                yield f"{section}[{n}] is no object"
                continue
            if missing := must - set(rule):
                yield f"{section}[{n}] lacks {', '.join(sorted(missing))}"
            if strange := set(rule) - must - may:
                yield f"{section}[{n}] has unknown {', '.join(sorted(strange))}"
            if section == "acls" and rule.get("action") != "accept":
                yield f"{section}[{n}].action is not `accept`"
            if section == "acls" and any(":" not in str(d) for d in rule.get("dst") or ()):
                yield f"{section}[{n}].dst names no port: write `host:22` or `host:*`"
            for who in [*(rule.get("src") or ()), *(rule.get("dst") or ())]:
                word = str(who)
                if word.startswith("group:") and word.split(":*")[0] not in groups:
                    yield f"{section}[{n}] uses {word}, which `groups` does not have"
                if word.startswith("tag:") and ":".join(word.split(":")[:2]) not in owned:
                    yield f"{section}[{n}] uses {word}, which `tagOwners` does not have"
