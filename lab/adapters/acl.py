"""ACL: who of this machine may read and write a folder, as its file system can say it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.core.problem import problem


def allow(folder: Path, access: Mapping[str, Sequence[str]]) -> None:
    """Only the owner and those named get in; without any named, the folder is as open as its parent."""
    if not any(access.values()):
        return
    os.chmod(folder, 0o700)
    for line in commands(folder, access, darwin=sys.platform == "darwin"):
        if shutil.which(line[0]) is None:
            raise problem(
                f"{line[0]} is not installed", why=f"{folder} has an `access:`", do="install the package `acl`"
            )
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
            raise problem(f"access to {folder} cannot be set", why=why, do="name users and groups of this machine")


def commands(folder: Path, access: Mapping[str, Sequence[str]], *, darwin: bool) -> list[list[str]]:
    """The command lines that set it, on macOS or elsewhere. Pure."""
    rights = dict.fromkeys(access.get("read", ()), "read") | dict.fromkeys(access.get("write", ()), "write")
    if darwin:
        mac = {
            "read": "read,execute,search,list,readattr,readextattr,file_inherit,directory_inherit",
            "write": "read,write,execute,search,list,append,delete,delete_child,add_file,add_subdirectory,"
            "readattr,writeattr,readextattr,writeextattr,file_inherit,directory_inherit",
        }
        entries = [
            f"{'group:' + who[1:] if who.startswith('@') else 'user:' + who} allow {mac[right]}"
            for who, right in rights.items()
        ]
        return [["chmod", "-R", "-N", str(folder)], *(["chmod", "-R", "+a", e, str(folder)] for e in entries)]
    entries = [
        f"{'g:' + who[1:] if who.startswith('@') else 'u:' + who}:{'rwX' if right == 'write' else 'rX'}"
        for who, right in rights.items()
    ]
    both = ",".join([*entries, *(f"d:{e}" for e in entries)])
    return [
        ["setfacl", "-R", "-b", str(folder)],
        ["setfacl", "-R", "-m", ",".join(entries), str(folder)],
        ["find", str(folder), "-type", "d", "-exec", "setfacl", "-m", both, "{}", "+"],
    ]
