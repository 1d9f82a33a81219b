"""A bundle: files and what they must hash to, as a folder or as one tar file; written whole or not at all.

`bundle.json` is written last and names every file with its size and sha256, and itself by a sum: what is missing,
shorter or other is named before anything of it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lab.adapters import clone
from lab.core.facts import digest
from lab.core.problem import Problem, Problems, problem
from lab.core.units import size as bytes_

MANIFEST = "bundle.json"
FORMAT = 1
MARGIN = 64 << 20
"""Bytes of a volume that a bundle leaves free."""
CHUNK = 1 << 22
Moved = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to be bundled: its name inside, where it lies, and its sha256 where that is known beforehand."""

    name: str
    path: Path
    sha256: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


def write(target: Path, entries: Sequence[Entry], about: Mapping[str, Any], moved: Moved) -> dict[str, Any]:
    """The bundle stands at `target`, a tar file where its name ends in `.tar`, else a folder; returns its manifest."""
    if os.path.lexists(target):
        raise problem(f"{target} is there already", do="name another place, or remove it")
    part = target.with_name(f"{target.name}.part")
    _clear(part)
    need = sum(e.size for e in entries)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(part.parent).free
        if need + MARGIN > free:
            raise problem(
                f"{bytes_(need)} do not fit in {part.parent}",
                why=f"{bytes_(free)} are free there",
                do="free some, or write the bundle to another volume",
            )
        manifest = (_tar if target.suffix == ".tar" else _folder)(part, entries, about, moved, need)
        os.rename(part, target)
        return manifest
    except OSError as e:
        raise problem(
            f"the bundle {target} cannot be written", why=e.strerror or str(e), do="see what its volume lacks"
        ) from e
    finally:
        _clear(part)


def _clear(part: Path) -> None:
    shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)


def _folder(part: Path, entries: Sequence[Entry], about: Mapping[str, Any], moved: Moved, need: int) -> dict[str, Any]:
    files = {}
    for entry in entries:
        to = part / entry.name
        to.parent.mkdir(parents=True, exist_ok=True)
        with open(entry.path, "rb") as read, open(to, "xb") as out:
            clone.reserve(out.fileno(), entry.size)
            source = _Hashing(read, moved)
            shutil.copyfileobj(source, out, CHUNK)
            os.fsync(out.fileno())
        files[entry.name] = _told(entry, source)
    manifest = _summed(about, files)
    part.mkdir(exist_ok=True)
    with open(part / MANIFEST, "xb") as out:
        out.write(json.dumps(manifest, indent=1, sort_keys=True).encode())
        os.fsync(out.fileno())
    return manifest


def _tar(part: Path, entries: Sequence[Entry], about: Mapping[str, Any], moved: Moved, need: int) -> dict[str, Any]:
    files = {}
    with open(part, "xb") as file:
        clone.reserve(file.fileno(), need)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as out:
            for entry in entries:
                member = tarfile.TarInfo(entry.name)
                with open(entry.path, "rb") as read:
                    member.size = os.fstat(read.fileno()).st_size
                    source = _Hashing(read, moved)
                    out.addfile(member, source)
                files[entry.name] = _told(entry, source)
            manifest = _summed(about, files)
            data = json.dumps(manifest, indent=1, sort_keys=True).encode()
            member = tarfile.TarInfo(MANIFEST)
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
        file.flush()
        os.fsync(file.fileno())
    return manifest


class _Hashing(io.RawIOBase):
    """A file whose bytes are counted and hashed while they are read."""

    def __init__(self, file: IO[bytes], moved: Moved) -> None:
        self.file, self.moved, self.hash, self.count = file, moved, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.hash.update(data)
        self.count += len(data)
        self.moved(len(data))
        return data


def _told(entry: Entry, source: _Hashing) -> dict[str, Any]:
    found = source.hash.hexdigest()
    if entry.sha256 and found != entry.sha256:
        raise problem(
            f"{entry.path} is damaged",
            why=f"its sha256 is {found}, recorded is {entry.sha256}",
            do="`lab verify` names whose it is; `lab apply` repairs it",
        )
    return {"size": source.count, "sha256": found}


def _summed(about: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    manifest = {"format": FORMAT, **about, "files": dict(sorted(files.items()))}
    return {**manifest, "sum": digest(manifest)}


# --- reading ---------------------------------------------------------------------------------------------------------


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle, whole or not. Reads."""
    if path.is_dir():
        return (path / MANIFEST).exists() or (path / "store").is_dir() or path.suffix == ".part"
    return path.is_file() and (path.suffix in (".tar", ".part") or tarfile.is_tarfile(path))


class Bundle:
    """A bundle, opened for reading; its manifest is known to be whole, its files once `verify` says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar: tarfile.TarFile | None = None
        try:
            if path.is_dir():
                data = (path / MANIFEST).read_bytes()
            else:
                self._tar = tarfile.open(path, "r:")  # noqa: SIM115
                member = self._tar.extractfile(MANIFEST)
                data = member.read() if member else b""
        except (OSError, KeyError, tarfile.TarError, EOFError) as e:
            raise _unusable(path, f"its {MANIFEST}, which is written last, is not there: it was cut short") from e
        try:
            self.manifest: dict[str, Any] = json.loads(data)
            self.sum = str(self.manifest.pop("sum"))
            if self.sum != digest(self.manifest):
                raise ValueError("sum")
            self.files: Mapping[str, Mapping[str, Any]] = self.manifest["files"]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as e:
            raise _unusable(path, f"its {MANIFEST} was altered") from e
        names = (*self.files, *self.manifest.get("links", ()), str(self.manifest.get("inside", ".")))
        if any(n.startswith("/") or ".." in n.split("/") for n in names):
            raise _unusable(path, "a name in it leads out of it")
        if self.manifest["format"] != FORMAT:
            raise _unusable(path, f"its format is {self.manifest['format']}, this Lab reads {FORMAT}")

    def below(self, folder: str) -> Iterator[str]:
        """The names of the files in one of its folders."""
        return (n for n in self.files if n.startswith(f"{folder}/"))

    def verify(self, moved: Moved) -> None:
        """Every file is there and holds what it should; Problems name each that is not."""
        wrong = []
        for name, known in self.files.items():
            found = hashlib.sha256()
            count = 0
            try:
                with self.open(name) as f:
                    while data := f.read(CHUNK):
                        found.update(data)
                        count += len(data)
                        moved(len(data))
            except (OSError, KeyError, tarfile.TarError) as e:
                wrong.append(Problem(f"{name} of the bundle {self.path} is not there", why=str(e), do=_AGAIN))
                continue
            if count != known["size"]:
                wrong.append(
                    Problem(
                        f"{name} of the bundle {self.path} was cut short",
                        why=f"it has {count} of {known['size']} bytes",
                        do=_AGAIN,
                    )
                )
            elif found.hexdigest() != known["sha256"]:
                wrong.append(
                    Problem(
                        f"{name} of the bundle {self.path} was altered",
                        why=f"its sha256 is {found.hexdigest()}, the manifest says {known['sha256']}",
                        do=_AGAIN,
                    )
                )
        if wrong:
            raise Problems(*wrong)

    def open(self, name: str) -> IO[bytes]:
        """One of its files, for reading."""
        if self._tar is None:
            path = self.path / name
            if path.is_symlink():
                raise OSError("it is a link")
            return open(path, "rb")
        found = self._tar.extractfile(name)
        if found is None:
            raise KeyError(name)
        return found

    def copy(self, name: str, to: Path, moved: Moved = lambda n: None) -> None:
        """`to` holds one of its files, whole and with the manifest's hash."""
        to.parent.mkdir(parents=True, exist_ok=True)
        beside = to.with_name(f".{to.name[:80]}.lab-tmp")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        try:
            with self.open(name) as read, open(beside, "xb") as out:
                source = _Hashing(read, moved)
                shutil.copyfileobj(source, out, CHUNK)
                os.fsync(out.fileno())
            if source.hash.hexdigest() != self.files[name]["sha256"]:
                raise problem(f"{name} of the bundle {self.path} was altered while it was read", do=_AGAIN)
            os.replace(beside, to)
        except OSError as e:
            raise problem(f"{to} cannot be written", why=e.strerror or str(e), do="mend that, then go on") from e
        finally:
            beside.unlink(missing_ok=True)


_AGAIN = "copy the bundle again, or make it anew with `lab bundle`; nothing of it was used"


def _unusable(path: Path, why: str) -> Problems:
    return problem(f"{path} is no whole bundle", why=why, do=_AGAIN)
