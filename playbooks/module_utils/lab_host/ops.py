# SPDX-License-Identifier: Apache-2.0
"""Operations by name. Each takes the machine and its own arguments, is idempotent, and fails with `Failed`."""

from __future__ import annotations

import os
import platform

from . import access, acl, broker, darwin, files, linux, services, sessions
from .machine import Failed

accounts = darwin if platform.system() == "Darwin" else linux

OPS = {
    "group": accounts.group,
    "account": accounts.account,
    "retire": accounts.retire,
    "file": files.file,
    "line": files.line,
    "folder": files.folder,
    "acl": acl.acl,
    "end_sessions": sessions.end,
    "leftovers": sessions.leftovers,
    "archive": sessions.archive,
    "reload": services.reload,
    "proc": services.proc,
    "broker": broker.broker,
    "broker_gone": broker.gone,
    "keep_home": sessions.keep,
    "members": access.members,
    "sshd": access.sshd,
    "tailscale": access.tailscale,
}


def perform(machine, op):
    """One operation, `{op: NAME, ...}`; an operation `{op: last, folder, ops}` acts only where a folder is empty."""
    arguments = dict(op)
    name = arguments.pop("op")
    if name == "last":
        if not os.path.isdir(arguments["folder"]) or not os.listdir(arguments["folder"]):
            for inner in arguments["ops"]:
                perform(machine, inner)
        return
    if name not in OPS:
        raise Failed(f"no operation is called {name}", "update the playbooks and the module together")
    OPS[name](machine, **arguments)
