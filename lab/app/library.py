"""library: models are added from files, moved to another store, and exported as one archive."""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from lab.adapters import store
from lab.adapters.files import put
from lab.app.lab import Lab
from lab.app.models import show
from lab.core import layout
from lab.core.address import Address, is_name
from lab.core.problem import did_you_mean, problem
from lab.core.units import size

CARD = "MODEL_CARD.md"


def add(
    lab: Lab, *, path: str = "", name: str = "", url: str = "", type_: str = "", description: str = ""
) -> dict[str, Any]:
    """A file or folder is declared in `conf/model/NAME.yaml`, applied, and described in `state/models/NAME.json`.

    Returns that record: name, path, size_gb, file_hash, source_url, type, description, date_added, added_by.
    """
    source = Path(path).expanduser().absolute() if path else None
    if source is None and not url:
        raise problem("nothing to add", do="give `--path` of a file or folder, or `--url`")
    if source is not None and not source.exists():
        raise problem(f"{source} is not there", do="give the path of a model's file or folder")
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "_", (source.stem if source else Path(url).stem)).strip("._-")
    if not is_name(name):
        raise problem(
            f"{name!r} is no name", why="a name has letters, digits, `_`, `-` and inner dots", do="give `--name`"
        )
    file = lab.conf / "model" / f"{name}.yaml"
    if file.exists():
        raise problem(f"model.{name} is declared already", why=f"in conf/model/{name}.yaml", do="give another `--name`")
    block: dict[str, Any] = {"description": description} if description else {}
    if source is not None:
        block["path"] = str(source)
        if source.is_file():
            block["sha256"] = store.digest(source)
        if url:
            block["origin"] = url
    else:
        block["url"] = url
    if type_:
        block["format"] = type_
    put(file, _yaml(block).encode())
    try:
        facts = _applied(lab, name)
    except BaseException:
        file.unlink()
        raise
    sizes, files = facts.get("model", {}).get("bytes", 0), facts.get("files", {})
    record = {
        "name": name,
        "path": str(source or facts["view"]),
        "size_gb": round(sizes / 1e9, 6),
        "file_hash": next(iter(files.values())) if len(files) == 1 else tree_hash(files),
        "source_url": url,
        "type": type_ or str(facts.get("model", {}).get("format", "")),
        "description": description,
        "date_added": datetime.now(UTC).isoformat(timespec="seconds"),
        "added_by": getpass.getuser(),
    }
    put(lab.state / "models" / f"{name}.json", json.dumps(record, indent=1, ensure_ascii=False).encode())
    return record


def tree_hash(files: Mapping[str, str]) -> str:
    """One hash for several files: SHA-256 of the lines `HASH  NAME`, as sha256sum prints them, by name. Pure."""
    return hashlib.sha256("".join(f"{h}  {n}\n" for n, h in sorted(files.items())).encode()).hexdigest()


def _applied(lab: Lab, name: str) -> Mapping[str, Any]:
    from lab.app.apply import apply
    from lab.apply.results import Outcome
    from lab.core.problem import Problems

    fresh = Lab(lab.root, lab.overrides, lab.tell)
    address = Address.of("model", name)
    if address not in fresh.declarations:
        raise problem(
            f"model.{name} is not part of this profile",
            why="the profile's `resources.model` does not choose it",
            do=f"add `{name}` there first, or choose another profile",
        )
    done = apply(fresh, [address], approve=lambda plan: True)
    for result in done.results.values() if done else ():
        if result.outcome is not Outcome.DONE:
            raise Problems(*result.problems)
    return Lab(lab.root, lab.overrides, lab.tell).records[address].facts


def _yaml(block: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(block), sort_keys=False, allow_unicode=True, width=1000)


def move(lab: Lab, name: str, to: str) -> Path:
    """`store:` of the model's file says `to`; the next apply copies the bytes there, verified. Returns the file."""
    known = layout.stores(lab.head.get("lab", {}), str(lab.store))
    if to not in known and to not in {b.get("tier") for b in known.values()}:
        raise problem(
            f"no store is called {to}{did_you_mean(to, known)}", do=f"use {', '.join(known)}, or add it to `lab.stores`"
        )
    address = Address.of("model", name.removeprefix("model."))
    lab.declaration(address)
    file = lab.root / lab.place(address)[0]
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    line = f"store: {to}\n"
    at = next((i for i, text in enumerate(lines) if re.match(r"store\s*:", text)), None)
    if at is None:
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.append(line)
    else:
        lines[at] = line
    put(file, "".join(lines).encode())
    return file


def export(lab: Lab, name: str, to: Path, progress: Callable[[int, int], None] = lambda a, b: None) -> tuple[Path, int]:
    """One archive with the model's files, a card, SHA256SUMS and its provenance; returns its path and bytes.

    `.tar.zst` where zstd is installed, else `.tar.gz`. Every byte is hashed on its way: a damaged model is a problem,
    and no archive is left. The same model gives the same archive.
    """
    found = show(lab, name)
    if not found["view"] or not found["files"]:
        raise problem(f"{name} is not in the store", do="run `lab apply` first")
    zstd = shutil.which("zstd")
    if to.is_dir() or not to.suffix:
        to = to / f"{found['name']}.tar.{'zst' if zstd else 'gz'}"
    if to.suffix == ".zst" and not zstd:
        raise problem("zstd is not installed", do=f"install it, or name the archive {to.with_suffix('.gz').name}")
    total = sum(f["bytes"] or 0 for f in found["files"])
    to.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(to.parent).free
    if free < total:
        raise problem(
            f"{to.parent} has too little room",
            why=f"{total:,} bytes may be needed, {free:,} are free",
            do="choose another",
        )
    partial = to.with_name(f".{to.name}.lab-tmp")
    try:
        with open(partial, "wb") as out:
            _pack(out, found, zstd if to.suffix == ".zst" else None, to.suffix == ".gz", progress, total)
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, to)
    finally:
        partial.unlink(missing_ok=True)
    return to, to.stat().st_size


def card(found: Mapping[str, Any]) -> str:
    """What `show` knows of a model, as a Markdown page. Pure."""
    made: Mapping[str, Any] = (found["provenance"] or {}).get("facts") or {}
    facts = {
        "source": found["source"],
        "licence": found["license"],
        "format": found["format"],
        "architecture": found["architecture"],
        "parameters": f"{found['params']:,}" if found["params"] else "",
        "precision": found["precision"],
        "context": found["context"],
        "size": size(found["bytes"] or 0),
        "tokenizer": found["tokenizer"],
        "chat template": found["chat_template"],
        "made of": made.get("of"),
        "bits per weight": made.get("bits_per_weight"),
        "made by": (found["provenance"] or {}).get("engine"),
    }
    lines = [f"# {found['name']}", "", *([found["description"], ""] if found["description"] else [])]
    lines += [f"- {k}: {v}" for k, v in facts.items() if v]
    lines += ["", "Check the files with `sha256sum -c SHA256SUMS`; declare them in a lab as a model with `path:`.", ""]
    return "\n".join(lines)


def _pack(
    out: IO[bytes],
    found: Mapping[str, Any],
    zstd: str | None,
    gzip: bool,
    progress: Callable[[int, int], None],
    total: int,
) -> None:
    import gzip as gzip_

    if zstd:
        process = subprocess.Popen([zstd, "-q", "-c", "-T0", "-3"], stdin=subprocess.PIPE, stdout=out)
        assert process.stdin
        sink: Any = process.stdin
    else:
        process = None
        sink = gzip_.GzipFile("", "wb", 6, out, mtime=0) if gzip else out
    try:
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            done = 0
            record = json.dumps(found["provenance"], indent=1, sort_keys=True).encode()
            texts = {layout.PROVENANCE: record}
            if CARD not in {f["name"] for f in found["files"]}:
                texts[CARD] = card(found).encode()
            sums = [(hashlib.sha256(text).hexdigest(), name) for name, text in texts.items()]
            sums += [(f["sha256"], f["name"]) for f in found["files"]]
            texts["SHA256SUMS"] = "".join(f"{sha256}  {name}\n" for sha256, name in sums).encode()
            for name, text in texts.items():
                _member(tar, f"{found['name']}/{name}", io.BytesIO(text), len(text))
            for file in found["files"]:
                place = Path(file["lies_in"])
                if not place.is_file():
                    raise problem(f"{file['name']} is not there", why=f"{place} is missing", do="run `lab apply` first")
                with open(place, "rb") as f:
                    reader = _Hashing(f, lambda n: progress(n, total), done)
                    _member(tar, f"{found['name']}/{file['name']}", reader, place.stat().st_size)
                    done = reader.done
                if reader.hash.hexdigest() != file["sha256"]:
                    raise problem(
                        f"{file['name']} is damaged in the store", why=f"at {place}", do="run `lab apply` first"
                    )
    finally:
        if process is None and sink is not out:
            sink.close()
        elif process is not None:
            process.communicate()  # its input is closed, whatever became of it
        if process is not None and (code := process.returncode):
            raise problem(
                "zstd failed",
                why=f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it ended with status {code}",
                do="see what it printed above, or name the archive .tar.gz",
            )


def _member(tar: tarfile.TarFile, name: str, file: Any, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    tar.addfile(info, file)


class _Hashing:
    """A reader that hashes what passes."""

    def __init__(self, file: IO[bytes], tell: Callable[[int], None], done: int) -> None:
        self.file, self.tell, self.done, self.hash = file, tell, done, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.hash.update(data)
        self.done += len(data)
        self.tell(self.done)
        return data
