"""The content-addressed store: every file once under its hash, and views of links that people and tools read.

A blob is written under its name only when it is whole, verified and synced; it is read-only from then on. A view is
built beside and put in place in one rename, so a reader sees the old files or the new ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lab.adapters import clone
from lab.adapters.files import put
from lab.core import layout
from lab.core.problem import problem

FORMAT = 1


def path(store: Path, sha256: str) -> Path:
    """Where the blob lies, or would lie."""
    return Path(layout.blob(str(store), sha256))


def digest(file: Path) -> str:
    """Hex SHA-256 of a file. Reads."""
    with open(file, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def stamp(store: Path, lab: str) -> None:
    """The store exists and knows that this lab uses it."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        with alone(store):
            known = stamped(store)
            if known is not None and (lab in known or not lab):
                return
            labs = sorted({*(known or ()), *([lab] if lab else [])})
            put(store / layout.PROVENANCE, json.dumps({"format": FORMAT, "labs": labs}, indent=1).encode())
    except PermissionError as e:
        raise disk(e, store) from e
    except OSError as e:
        raise problem(
            f"the store {store} cannot be made", why=e.strerror or "", do="mount its volume, or set `lab.store`"
        ) from e


def enter(store: Path, lab: str, state: Path) -> None:
    """The store is there to be written; raises Problems where it was one when this lab last wrote there, and is none
    now: an empty mount point looks like an empty folder. What a restore has put there is a store again."""
    noted = state / "stores" / hashlib.sha256(os.fsencode(store)).hexdigest()[:16]
    gone = noted.exists() and store.is_dir() and stamped(store) is None
    if gone and not any(p.is_file() for p in (store / "blobs").rglob("*")):
        raise problem(
            f"{store} is not the store it was",
            why=f"its volume is not mounted, or {layout.PROVENANCE} was removed",
            do=f"mount its volume; if it was emptied on purpose, remove {noted}",
        )
    stamp(store, lab)
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.touch()


@contextlib.contextmanager
def alone(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Nobody else is inside, in this process or another, but those who share it where we do."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def stamped(store: Path) -> tuple[str, ...] | None:
    """The ids of the labs that use the store; None where it is no store (not made, or its volume is away). Reads."""
    try:
        return tuple(json.loads((store / layout.PROVENANCE).read_bytes()).get("labs", ()))
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError, OSError):
        return ()


def add(store: Path, file: Path, sha256: str | None = None) -> str:
    """The finished `file` is a blob now, and its old name is gone; returns its hash.

    Whoever gives `sha256` has verified it. Whatever lay under the blob's name is replaced: the new bytes are the
    verified ones. From another volume the bytes are copied first.
    """
    sha256 = sha256 or digest(file)
    final = path(store, sha256)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if file.stat().st_dev != final.parent.stat().st_dev:
            moved = _aside(store)
            try:
                clone.copy(file, moved)
                _settle(moved, final)
            finally:
                moved.unlink(missing_ok=True)
            file.unlink()
        else:
            _settle(file, final)
    except OSError as e:
        raise disk(e, store) from e
    return sha256


def copy(store: Path, file: Path, sha256: str | None = None) -> str:
    """The bytes of `file` are a blob now; `file` is left as it is. A clone where the file system has them."""
    try:
        whole = _aside(store)
        try:
            clone.copy(file, whole)
            found = digest(whole)
            if sha256 and found != sha256:
                raise problem(
                    f"{file} has other bytes than declared",
                    why=f"its sha256 is {found}, not {sha256}",
                    do="declare the hash it has, or name the right file",
                )
            return add(store, whole, found)
        finally:
            whole.unlink(missing_ok=True)
    except OSError as e:
        raise disk(e, store) from e


def _aside(store: Path) -> Path:
    """Where bytes lie until they are a blob: in the one folder whose leftovers the next apply removes."""
    holding = Path(layout.incoming(str(store)))
    holding.mkdir(parents=True, exist_ok=True)
    return holding / f"copy-{secrets.token_hex(6)}.lab-tmp"


def _settle(file: Path, final: Path) -> None:
    """What a failed sync may have lost is gone: the next sync of the same bytes would succeed, and keep nothing."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fchmod(fd, 0o444)
        os.fsync(fd)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    known = final.exists()
    os.replace(file, final)
    _synced(final.parent, lambda: None if known else final.unlink())


def _synced(folder: Path, undo: Callable[[], None]) -> None:
    """The folder's names are on disk; where that fails, the last change to them is undone: it is not to be taken for
    finished work later."""
    try:
        sync(folder)
    except OSError:
        with contextlib.suppress(OSError):
            undo()
        raise


def sync(folder: Path) -> None:
    """The folder's names are on disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def view(
    store: Path,
    folder: Path | str,
    files: Mapping[str, str],
    provenance: Mapping[str, Any],
    foreign: Mapping[str, Path] | None = None,
) -> Path:
    """`folder` holds exactly links to these blobs (relative path → sha256), and `.lab.json`; returns it.

    `foreign` files are linked to where they lie instead. `provenance` is any JSON, written with `files` added; give
    `digest` there for derived artefacts. A relative `folder` starts at `STORE/models`. The old view is replaced at
    once; ordinary files somebody had put into it are kept under `STORE/stray`.
    """
    folder = Path(layout.models(str(store))) / folder
    outside = {k: str(v) for k, v in (foreign or {}).items()}
    record = {"format": FORMAT, **provenance, "files": dict(sorted(files.items()))}
    if outside:
        record["foreign"] = dict(sorted(outside.items()))
    before = _before(folder, record)
    new = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.lab-tmp")
    try:
        new.mkdir(parents=True)
        for name, sha256 in files.items():
            link = new / _inside(name)
            link.parent.mkdir(parents=True, exist_ok=True)
            # Relative, so that a store whose volume is mounted elsewhere still reads.
            target = outside.get(name) or os.path.relpath(path(store, sha256), folder / Path(name).parent)
            link.symlink_to(target)
        put(new / layout.PROVENANCE, json.dumps(record, indent=1, sort_keys=True).encode())
        with alone(store, shared=True):
            _whole(store, folder, {name: sha256 for name, sha256 in files.items() if name not in outside})
            if folder.exists():
                if before and before.get("files") != record["files"]:
                    bury(store, before)
                clone.exchange(new, folder)
                _synced(folder.parent, lambda: clone.exchange(new, folder))
                _rescue(store, new, folder.name)
            else:
                os.rename(new, folder)
                _synced(folder.parent, lambda: os.rename(folder, new))
    except OSError as e:
        raise disk(e, store) from e
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def provenance(folder: Path) -> Mapping[str, Any] | None:
    """What `.lab.json` of a view says; None where there is none or it cannot be read. Reads."""
    try:
        value = json.loads((folder / layout.PROVENANCE).read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def drop(folder: Path) -> None:
    """The view is gone, and the folders above it that became empty; its blobs stay until `lab gc`."""
    if folder.is_symlink() or not folder.exists():
        return
    if (record := provenance(folder)) is not None and (top := _root(folder)) is not None:
        bury(top, record)
    gone = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.lab-tmp")
    os.rename(folder, gone)
    shutil.rmtree(gone)
    parent = folder.parent
    while parent.name != "models" and parent != parent.parent:
        try:
            parent.rmdir()
        except OSError:
            break
        parent = parent.parent


def bury(store: Path, record: Mapping[str, Any]) -> None:
    """What a view held is noted, so that `lab gc` can keep its blobs for generations that may be rolled back to."""
    stone = {"address": record.get("address", ""), "files": record.get("files", {}), "lab": record.get("lab", "")}
    text = json.dumps(stone, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:24]
    put(store / "dropped" / f"{name}.json", text.encode())


def _root(folder: Path) -> Path | None:
    """The store a view lies in."""
    return next((p.parent for p in folder.parents if p.name == "models" and (p.parent / "blobs").is_dir()), None)


def views(store: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every view in the store with its provenance. Reads."""
    for folder, names, files in os.walk(layout.models(str(store))):
        names[:] = sorted(n for n in names if not n.endswith(".lab-tmp"))
        if layout.PROVENANCE in files and (found := provenance(Path(folder))) is not None:
            yield Path(folder), found


def _whole(store: Path, folder: Path, files: Mapping[str, str]) -> None:
    gone = sorted(name for name, sha256 in files.items() if not path(store, sha256).exists())
    if gone:
        raise problem(
            f"{folder.name} has lost {', '.join(gone[:3])}{' …' * bool(gone[3:])} while it was made",
            why="`lab gc` of a lab that shares the store freed it: nothing needed it yet",
            do="run `lab apply` again: it is fetched again",
        )


def _inside(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/") or not name.isprintable() or name in ("", layout.PROVENANCE):
        raise problem(f"{name!r} is no name for a model's file", why="it leads out of the folder", do="name it plainly")
    return name


def _before(folder: Path, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The provenance of the view that is replaced; raises where it is another lab's, or no view."""
    if not folder.exists():
        return None
    old = provenance(folder)
    if old is None and any(folder.iterdir()):
        raise problem(
            f"{folder} is in the way",
            why="it is no view that Lab made",
            do="move it away, or give the model another `family:`",
        )
    if old and old.get("lab") and record.get("lab") and old["lab"] != record["lab"] and old["files"] != record["files"]:
        raise problem(
            f"{folder} belongs to another lab",
            why=f"lab {old['lab']} made it from other files",
            do="give this lab a store of its own (`lab.store`), or the model a `family:`",
        )
    return old


def _rescue(store: Path, old: Path, name: str) -> None:
    """Ordinary files in the old view are somebody's: they are moved to STORE/stray."""
    for file in sorted(old.rglob("*")):
        if file.name == layout.PROVENANCE or not stat.S_ISREG(file.lstat().st_mode):
            continue
        kept = store / "stray" / f"{name}-{secrets.token_hex(3)}" / file.relative_to(old)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.rename(file, kept)


def disk(error: OSError, store: Path) -> Exception:
    """The problem behind an error of the operating system while the store was written."""
    if isinstance(error, PermissionError):
        return problem(
            f"the store {store} cannot be written", why="permission denied", do="make it writable, or set `lab.store`"
        )
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(store).free
        if error.errno in (28, 122):
            return problem(
                f"no space left in the store {store}",
                why=f"{free:,} bytes are free on its volume",
                do="run `lab gc`, or give the model another `store:`",
            )
    return problem(f"the store {store} cannot be written", why=error.strerror or str(error), do="see `lab doctor`")
