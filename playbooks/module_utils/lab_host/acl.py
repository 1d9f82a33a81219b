# SPDX-License-Identifier: Apache-2.0
"""Access control lists: POSIX on Linux, NFSv4-like on macOS."""

from __future__ import annotations

import os
import platform

from .machine import Failed

READ = "list,search,readattr,readextattr,readsecurity,read,execute,file_inherit,directory_inherit"
ALL = READ + ",write,append,delete,add_file,add_subdirectory,delete_child,writeattr,writeextattr,chown"


def acl(machine, path, who, permissions="", recursive=False, state="present", store=""):
    """`who` (`u:NAME` or `g:NAME`) has exactly `permissions` (`rX`, `x`, or empty for none) on `path`.

    With `recursive`, on all below it and, for folders, on what will be made there; and, within `store`, on the files
    that links below it point to, with a way to each.
    """
    if not os.path.lexists(path):
        if state == "absent":
            return
        raise Failed(f"{path} is not there", "apply what makes it first")
    if platform.system() == "Darwin":
        darwin(machine, path, who, permissions, recursive, state)
    else:
        linux(machine, path, who, permissions, recursive, state)
    if recursive and store:
        behind_links(machine, path, who, permissions, state, store)


def behind_links(machine, path, who, permissions, state, store):
    """What links below `path` point to inside the store: each target, and the folders above it.

    What is revoked is revoked first, so a way that another grant needs is opened again by that grant.
    """
    act = darwin if platform.system() == "Darwin" else linux
    top = os.path.realpath(store)
    targets, ways = set(), set()
    for folder, _folders, names in os.walk(path):
        for link in (os.path.join(folder, n) for n in names):
            target = os.path.realpath(link)
            if os.path.islink(link) and os.path.isfile(target) and target.startswith(top + "/"):
                targets.add(target)
                above = os.path.dirname(target)
                while above.startswith(top + "/"):
                    ways.add(above)
                    above = os.path.dirname(above)
    for way in sorted(ways):
        act(machine, way, who, "x", False, state)
    for target in sorted(targets):
        act(machine, target, who, permissions, False, state)


def linux(machine, path, who, permissions, recursive, state):
    deep = ["-R", "-P"] if recursive else []
    entry = "{}:{}".format(who, permissions or "---")
    change = ["-m", entry] if state == "present" else ["-x", who]
    before = listing(machine, path, recursive)
    if state == "absent" and not any(who_line(text, who) for text in before):
        return
    argv = ["setfacl", *deep, *change]
    spec = entry if state == "present" else who
    if recursive and os.path.isdir(path):
        argv = ["setfacl", *deep, "-m" if state == "present" else "-x", f"{spec},d:{spec}"]
    if state == "present" and sound(before, who, permissions, recursive):
        return
    machine.run(*argv, path, do="is the `acl` package installed, and the volume mounted with ACLs?")
    if state == "absent" and not machine.check:
        tidy(machine, path, recursive)


def listing(machine, path, recursive):
    """One text per file or folder, `user:NAME:r-x` lines in each."""
    status, out, err = machine.ask("getfacl", "-p", "-E", *(["-R", "-P"] if recursive else []), path)
    if status:
        raise Failed("getfacl: " + err.strip(), "install the `acl` package")
    return [block for block in out.split("\n\n") if block.strip()]


def who_line(text, who):
    kind, _, name = who.partition(":")
    word = {"u": "user", "g": "group"}[kind]
    return [x for x in text.splitlines() if f"{word}:{name}:" in x]


def sound(blocks, who, permissions, recursive):
    for text in blocks:
        folder = "flags" in text or "default:" in text
        lines = who_line(text, who)
        plain = [x for x in lines if not x.startswith("default:")]
        if len(plain) != 1:
            return False
        has = plain[0].rsplit(":", 1)[1]
        if not agrees(has, permissions):
            return False
        if recursive and folder and len(lines) != 2:
            return False
    return True


def agrees(has, wanted):
    """Whether `r-x` is what `rX` asks for; X may be absent on a plain file."""
    return all((c in has) == (c in wanted) for c in "rw") and (
        ("x" in wanted) == ("x" in has) if "X" not in wanted else True
    )


def tidy(machine, path, recursive):
    """An ACL that says no more than the mode goes, so that the file is as it was."""
    for root, _, names in os.walk(path) if recursive else [(os.path.dirname(path), [], [os.path.basename(path)])]:
        here = [root] if recursive else []
        for each in [*here, *(os.path.join(root, n) for n in names)]:
            if os.path.islink(each):
                continue
            _status, out, _err = machine.ask("getfacl", "-p", "-c", "-E", each)
            entries = [x for x in out.split() if x]
            named = [x for x in entries if not x.startswith(("user::", "group::", "mask::", "other::"))]
            if not any(not x.startswith("default:") or x.split(":")[2] for x in named):
                machine.ask("setfacl", "-b", each)


def darwin(machine, path, who, permissions, recursive, state):
    kind, _, name = who.partition(":")
    person = "{}:{}".format({"u": "user", "g": "group"}[kind], name)
    rights = {"": "deny " + ALL, "x": "allow search", "rX": "allow " + READ}[permissions]
    rule = f"{person} {rights}"
    deep = ["-R"] if recursive else []
    _status, out, _err = machine.ask("ls", "-led", path)
    there = f"{person} {rights.split()[0]}" in out
    if state == "present" and not there:
        machine.run("chmod", *deep, "+a", rule, path)
    elif state == "absent" and there:
        machine.run("chmod", *deep, "-a", rule, path)
