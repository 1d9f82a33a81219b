"""Files: the performers of `write` and `remove`, and who owns what."""

from __future__ import annotations

import base64
import contextlib
import grp
import hashlib
import os
import pwd
import shutil
from pathlib import Path

from lab.core.facts import Facts
from lab.core.problem import problem
from lab.core.step import Remove, Stage, Write


def write(step: Write, stage: Stage) -> Facts:
    """The file is in place, whole: written beside, synced, then renamed."""
    data = base64.b64decode(step.content) if step.encoding == "base64" else step.content.encode()
    path = Path(step.path)
    if path.is_dir() and not path.is_symlink():
        raise problem(
            f"{path} is a directory", why="a file is declared there", do="move it away, or declare another path"
        )
    put(path, data, mode=step.mode, owner=step.owner, group=step.group)
    digest = hashlib.sha256(data).hexdigest()
    stage.remember(path, digest)
    return {"content": digest}


def put(path: Path, data: bytes, *, mode: int | None = None, owner: str = "", group: str = "") -> None:
    """`path` holds exactly `data`; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.unlink(missing_ok=True)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as f:
            f.write(data)
            if owner:
                shutil.chown(temporary, owner)
            if group:
                shutil.chown(temporary, group=group)
            os.fchmod(fd, 0o644 if mode is None else mode)
            f.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except LookupError as e:
        raise problem(f"{path} cannot be given to {owner or group}", why=str(e), do="declare a user that exists") from e
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _beside(path: Path) -> Path:
    """Where a file is written before it is renamed: always the same name, so that what a kill left is found again."""
    return path.with_name(f".{path.name[:80]}.lab-tmp")


def remove(step: Remove, stage: Stage) -> None:
    """Nothing is at the path; asking twice is the same as asking once."""
    path = Path(step.path)
    _beside(path).unlink(missing_ok=True)
    if step.tree and path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    parent, top = path.parent, Path(step.upto) if step.upto else path.parent
    while parent != top and top in parent.parents:
        try:
            parent.rmdir()
        except OSError:
            break
        parent = parent.parent


def user(uid: int) -> str:
    """The name behind a user id; the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group(gid: int) -> str:
    """The name behind a group id; the number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
