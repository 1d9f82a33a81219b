"""Wheels: what runs here, packed again as installable files; no index is asked, and what was built here goes along.

An installed package knows its files (`RECORD`) and for which Pythons and machines it was built (`WHEEL`): with these it
is a wheel again. Lab itself, where it runs from a checkout, is packed from there.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata as metadata
import io
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab.core.problem import problem

LAB = "llm-lab"
DEVELOPMENT = ("dev",)
_OURS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def extras(asked: Iterable[str] | None = None) -> tuple[str, ...]:
    """The extras of Lab that are installed here whole, or those asked for; a problem where one of them is not."""
    ours = metadata.distribution(LAB)
    known = [e for e in ours.metadata.get_all("Provides-Extra") or () if e not in DEVELOPMENT]
    whole = [e for e in known if not any(_missing(n) for n in _requirements(LAB, (e,)))]
    if asked is None:
        return tuple(whole)
    for extra in asked:
        if extra not in whole:
            raise problem(
                f"the extra `{extra}` is not installed here" if extra in known else f"there is no extra `{extra}`",
                why=f"whole are: {', '.join(whole) or 'none'}",
                do=f"install 'llm-lab[{extra}]' first" if extra in known else "name one of these",
            )
    return tuple(asked)


def distributions(chosen: Iterable[str]) -> list[metadata.Distribution]:
    """Lab, its extras, and all that these need, each once, by name."""
    found: dict[str, metadata.Distribution] = {}
    asked: dict[str, set[str]] = {}
    todo = [(LAB, tuple(chosen))]
    while todo:
        name, wanted = todo.pop()
        if name in asked and set(wanted) <= asked[name]:
            continue
        asked.setdefault(name, set()).update(wanted)
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError as e:
            raise problem(f"{name} is needed and not installed", do="install Lab anew") from e
        todo += _requirements(name, tuple(asked[name]))
    return [found[n] for n in sorted(found)]


def _requirements(name: str, wanted: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    from packaging.requirements import Requirement

    for text in metadata.distribution(name).requires or ():
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in ("", *wanted)):
            yield normalized(need.name), tuple(need.extras)


def _missing(requirement: tuple[str, tuple[str, ...]]) -> bool:
    try:
        metadata.distribution(requirement[0])
    except metadata.PackageNotFoundError:
        return True
    return False


def normalized(name: str) -> str:
    """A package's one name. Pure."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pack(one: metadata.Distribution, folder: Path) -> Path:
    """The wheel of an installed package lies in `folder`; the same package gives the same bytes."""
    name = re.sub(r"[-.]+", "_", one.metadata["Name"])
    said = one.read_text("WHEEL") or ""
    tags = re.findall(r"^Tag: *(\S+)-(\S+)-(\S+) *$", said, re.M) or [("py3", "none", "any")]
    tag = "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))
    target = folder / f"{name}-{one.version}-{tag}.whl"
    info = f"{name}-{one.version}.dist-info"
    entries = dict(_files(one, info, f"{name}-{one.version}.data"))
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str, str]] = []
    temporary = target.with_suffix(".lab-tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as out:
        for inside, path in sorted(entries.items()):
            data = _shebang(path.read_bytes()) if ".data/scripts/" in inside else path.read_bytes()
            sum_ = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append((inside, f"sha256={sum_}", str(len(data))))
            _put(out, inside, data, executable=bool(path.stat().st_mode & 0o111))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (f"{info}/RECORD", "", "")])
        _put(out, f"{info}/RECORD", text.getvalue().encode())
    os.replace(temporary, target)
    return target


def _put(out: zipfile.ZipFile, name: str, data: bytes, executable: bool = False) -> None:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.external_attr = (0o100755 if executable else 0o100644) << 16  # without the file's type pip sets no mode
    member.compress_type = zipfile.ZIP_DEFLATED
    out.writestr(member, data)


def _files(one: metadata.Distribution, info: str, data: str) -> Iterator[tuple[str, Path]]:
    """Name in the wheel → where it lies, of every file of a package but what an installer wrote."""
    made = {f"bin/{e.name}" for e in one.entry_points if e.group in ("console_scripts", "gui_scripts")}
    editable = normalized(one.metadata["Name"]) == LAB and _editable(one)
    if one.files is None:
        raise problem(f"{one.metadata['Name']} does not say which files it has", do="install it with pip, not by hand")
    for file in one.files:
        path, parts = Path(str(one.locate_file(file))), file.parts
        if "__pycache__" in parts or file.suffix == ".pyc" or not path.is_file():
            continue
        if parts[0].endswith(".dist-info"):
            if file.name not in _OURS:
                yield f"{info}/{'/'.join(parts[1:])}", path
        elif ".." in parts:
            outside = os.path.relpath(os.path.realpath(path.parent), os.path.realpath(sys.prefix)) + "/" + path.name
            if outside in made or outside.startswith(".."):
                continue
            yield f"{data}/scripts/{path.name}" if outside.startswith("bin/") else f"{data}/data/{outside}", path
        elif not editable:
            yield file.as_posix(), path
    if editable:
        yield from _checkout()


def _editable(one: metadata.Distribution) -> bool:
    return '"editable":true' in (one.read_text("direct_url.json") or "").replace(" ", "")


def _checkout() -> Iterator[tuple[str, Path]]:
    package = Path(__file__).resolve().parents[1]
    rooms = {"lab": package} | {f"lab/_shipped/{n}": package.parent / n for n in ("playbooks", "recipes")}
    for inside, folder in rooms.items():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{inside}/{path.relative_to(folder).as_posix()}", path


def _shebang(data: bytes) -> bytes:
    """A script whose first line names this Python names whichever installs it."""
    head, line, rest = data.partition(b"\n")
    return b"#!python\n" + rest if line and head.startswith(b"#!") and b"python" in head else data
