"""Conf: which files a lab's `conf/` holds, and what is wrong with their names and places."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab import kinds
from lab.core.address import is_name
from lab.core.problem import Problem, did_you_mean
from lab.declare.cache import Identity, identity

HEAD = ("host", "profile", "stage")
"""Groups of the head that a lab may have without naming them in its defaults list."""
ASIDE = ("lock",)
"""Folders that hold no declarations."""


@dataclass(slots=True)
class Conf:
    """The files of a lab's `conf/`, by what they are for. Names are in order, so that everything after is too."""

    root: Path
    kinds: dict[str, dict[str, Identity]] = field(default_factory=dict)
    """Kind → name → identity of `conf/KIND/NAME.yaml`."""
    fragments: dict[str, dict[str, Identity]] = field(default_factory=dict)
    """Kind → `_name`: parts for `defaults:` lists, no resources of their own."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Other folders → their options: host, profile, and groups of the user's own."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def conf(self) -> Path:
        """`conf/`."""
        return self.root / "conf"

    def file(self, kind: str, name: str) -> str:
        """`conf/KIND/NAME.yaml`, as problems name it."""
        return f"conf/{kind}/{name}.yaml"


def known_kinds() -> tuple[str, ...]:
    """Every kind there is, shipped or plugged in. Reads."""
    return tuple(sorted({*kinds.shipped(), *kinds.plugged()}))


def walk(root: Path) -> Conf:
    """What `root/conf` holds. A folder that is no kind is taken for a group of the head. Reads."""
    conf = Conf(root)
    known = set(known_kinds())
    try:
        entries = sorted(os.scandir(conf.conf), key=lambda e: e.name)
    except OSError as e:
        why = "there is no such folder" if isinstance(e, FileNotFoundError) else e.strerror or ""
        conf.problems.append(
            Problem("conf/ cannot be read", file="conf", why=why, do="run `lab init` in an empty folder")
        )
        return conf
    real = os.path.realpath(conf.conf)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_symlink() and not _inside(entry.path, real):
            conf.problems.append(_leads_out(f"conf/{entry.name}"))
        elif entry.is_dir():
            if entry.name in ASIDE:
                continue
            files = dict(_files(conf, entry.path, entry.name, real, known))
            if entry.name in known:
                conf.kinds[entry.name] = {n: i for n, i in files.items() if not n.startswith("_")}
                conf.fragments[entry.name] = {n: i for n, i in files.items() if n.startswith("_")}
                _check_names(conf, entry.name, conf.kinds[entry.name])
            else:
                conf.groups[entry.name] = list(files)
        elif entry.name != "lab.yaml" and entry.name.endswith((".yaml", ".yml")):
            conf.problems.append(_stray(entry.name, known))
    return conf


def _files(conf: Conf, folder: str, group: str, real: str, known: set[str]) -> Iterator[tuple[str, Identity]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as e:
        conf.problems.append(Problem("the folder cannot be read", file=f"conf/{group}", why=e.strerror or ""))
        return
    for entry in entries:
        name = entry.name
        if name[0] == ".":
            continue
        if name[-5:] != ".yaml":
            if name.lower().endswith((".yml", ".yaml")):
                stem = name.rpartition(".")[0]
                conf.problems.append(
                    Problem(f"{name} is not read", file=f"conf/{group}/{name}", do=f"rename it to {stem}.yaml")
                )
            elif group in known and entry.is_dir(follow_symlinks=False):
                conf.problems.append(
                    Problem(
                        "a folder inside the folder of a kind is not read",
                        file=f"conf/{group}/{name}",
                        do="keep one file per resource directly in the folder of its kind",
                    )
                )
            continue
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                if not _inside(entry.path, real):
                    conf.problems.append(_leads_out(f"conf/{group}/{name}"))
                    continue
                status = entry.stat()
        except OSError as e:
            why = "the link leads nowhere" if isinstance(e, FileNotFoundError) else e.strerror or ""
            conf.problems.append(Problem("the file cannot be read", file=f"conf/{group}/{name}", why=why))
            continue
        if not stat.S_ISREG(status.st_mode):
            conf.problems.append(Problem(f"{name} is no file", file=f"conf/{group}/{name}", do="make it a plain file"))
            continue
        yield name[:-5], identity(status)


def _check_names(conf: Conf, kind: str, names: dict[str, Identity]) -> None:
    for name in [n for n in names if not is_name(n)]:
        del names[name]
        conf.problems.append(
            Problem(
                f"`{_printable(name)}` is no valid name for a resource",
                file=_printable(conf.file(kind, name)),
                why="a name has letters, digits, `_`, `-` and inner dots, at most 128 characters",
                do="rename the file",
            )
        )
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.lower(), name)
        if other != name:
            conf.problems.append(
                Problem(
                    f"{kind}.{name} and {kind}.{other} differ only in case",
                    file=conf.file(kind, name),
                    why="on macOS both would be one file",
                    do="rename one of them",
                    address=f"{kind}.{name}",
                )
            )


def unused_group(name: str, used: set[str]) -> Problem | None:
    """A folder that is neither a kind nor a group the head uses, as a problem. Pure."""
    if name in used or name in HEAD or name.startswith("_"):
        return None
    hint = did_you_mean(name, known_kinds())
    return Problem(
        f"`{_printable(name)}` is no kind{hint}",
        file=f"conf/{_printable(name)}",
        why="it is no group of the defaults list in conf/lab.yaml either",
        do="rename the folder, or remove it",
    )


def _stray(name: str, known: set[str]) -> Problem:
    stem = name.rpartition(".")[0]
    if stem == "lab":
        return Problem(f"{name} is not read", file=f"conf/{name}", do="rename it to lab.yaml")
    return Problem(
        f"{_printable(name)} stands beside lab.yaml and is not read",
        file=f"conf/{_printable(name)}",
        do=f"move it to conf/KIND/{_printable(stem)}.yaml, the folder of its kind",
    )


def _leads_out(file: str) -> Problem:
    return Problem(
        "the link leads out of conf/",
        file=_printable(file),
        why="what is declared must be in the repository, to be reviewed and rebuilt elsewhere",
        do="put the file itself here",
    )


def _inside(path: str, real: str) -> bool:
    return os.path.realpath(path).startswith(real + os.sep)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)
