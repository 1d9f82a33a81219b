"""bundle: everything a lab is made of in one place, from which `lab rebuild` makes it again without a network."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import __version__
from lab.adapters import archives, git, wheels
from lab.adapters.bundle import Entry, write
from lab.adapters.envlock import lying
from lab.app import _places
from lab.app._saved import gather
from lab.app.lab import Lab
from lab.apply.events import Event
from lab.core import layout
from lab.core.problem import Problem, Problems, problem

NAME = "bundle"
"""Under which the state is gathered, as for a backup of that name."""
README = """This is an offline bundle of the lab `{lab}`, made by `lab bundle`. On a machine without a network:

    python3 -m venv lab-venv
    lab-venv/bin/pip install --no-index --find-links {here}/wheels 'llm-lab{extras}'
    lab-venv/bin/lab rebuild --from {here} --into lab

It was made for {platform} and Python {python}. `bundle.json` says what each file must hash to; rebuild checks it first.
"""


@dataclass(frozen=True)
class Part:
    """One part of a bundle: what it is called, and its files."""

    name: str
    entries: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        """How large it is."""
        return sum(e.size for e in self.entries)


Told = Callable[[Sequence[Part]], None]


def bundle(
    lab: Lab,
    target: Path | None = None,
    *,
    extras: Sequence[str] | None = None,
    without: Sequence[str] = (),
    told: Told = lambda parts: None,
) -> dict[str, Any]:
    """The bundle stands at `target` (a tar file where its name ends in `.tar`, else a folder), whole or not at all.

    `extras` of Lab go along, by default those installed here; `without` leaves out `wheels`, `archives`, `models` or
    `state`. `told` hears the parts with their sizes before anything is written. Says
    `{path, bytes, files, sum, parts}`.
    """
    target = (target or lab.root.parent / f"{lab.root.name}-bundle").absolute()
    if os.path.lexists(target):
        raise problem(f"{target} is there already", do="name another place, or remove it")
    _ready(lab)
    staged = lab.state / "cache" / "bundle"
    with ExitStack() as stack, lab.alone("bundle"):
        shutil.rmtree(staged, ignore_errors=True)
        stack.callback(shutil.rmtree, staged, ignore_errors=True)
        links: dict[str, str] = {}
        copies: dict[str, str] = {}
        makers: dict[str, Callable[[], list[Entry]]] = {
            "repository": lambda: [_repository(lab, staged)],
            "wheels": lambda: _wheels(staged, chosen),
            "archives": lambda: _archives(lab),
            "models": lambda: _models(lab, links, copies),
            "state": lambda: _state(lab, stack, links),
        }
        chosen = wheels.extras(extras) if "wheels" not in without else ()
        parts = [Part(n, tuple(make())) for n, make in makers.items() if n not in without]
        readme = staged / "README.txt"
        where = target if target.suffix != ".tar" else target.with_suffix("")
        named = f"[{','.join(chosen)}]" if chosen else ""
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        readme.write_text(
            README.format(lab=lab.root.name, here=where.name, extras=named, platform=lab.host.platform, python=python)
        )
        entries = [e for p in parts for e in p.entries] + [Entry("README.txt", readme)]
        sizes = {p.name: {"files": len(p.entries), "bytes": p.bytes} for p in parts}
        told(parts)
        manifest = write(
            target, entries, _about(lab, links, copies, chosen), _counter(lab, sum(e.size for e in entries))
        )
    return {
        "path": str(target),
        "bytes": sum(f["size"] for f in manifest["files"].values()),
        "files": len(manifest["files"]),
        "sum": manifest["sum"],
        "parts": sizes,
    }


def _about(lab: Lab, links: Mapping[str, str], copies: Mapping[str, str], extras: Sequence[str]) -> dict[str, Any]:
    head = git.head(lab.root)
    return {
        "lab": lab.id,
        "at": time.time(),
        "host": socket.gethostname(),
        "platform": lab.host.platform,
        "version": __version__,
        "extras": list(extras),
        "commit": head.revision,
        "branch": head.branch,
        "inside": lab.root.resolve().relative_to(git.top(lab.root)).as_posix(),
        "overrides": list(lab.overrides),
        "places": _places.of(lab),
        "links": dict(links),
        "copies": dict(copies),
    }


def _counter(lab: Lab, total: int) -> Callable[[int], None]:
    done = 0

    def moved(size: int) -> None:
        nonlocal done
        done += size
        lab.tell(Event("progress", "bundle", done=done, total=total, unit="B"))

    return moved


def _ready(lab: Lab) -> None:
    """What is declared is committed, locked and made: else the bundle could not give the same lab again."""
    head = git.head(lab.root)
    if not head.revision:
        raise problem(f"{lab.root} is in no git repository", do="run `git init` and commit: a bundle holds commits")
    if head.dirty:
        raise problem("there are uncommitted changes", why="a bundle holds commits", do="commit them, then bundle")
    missing = [
        Problem(f"{a} is declared and not made yet", do="run `lab apply` first", file=lab.place(a)[0])
        for a in lab.declarations
        if a not in lab.records and a.kind in ("env", "model", "quantization", "dataset")
    ]
    if missing:
        raise Problems(*missing)


def _repository(lab: Lab, staged: Path) -> Entry:
    staged.mkdir(parents=True, exist_ok=True)
    git.bundle(lab.root, staged / "repository.bundle")
    return Entry("repository.bundle", staged / "repository.bundle")


def _wheels(staged: Path, extras: Sequence[str]) -> list[Entry]:
    made = [wheels.pack(one, staged / "wheels") for one in wheels.distributions(extras)]
    return [Entry(f"wheels/{w.name}", w) for w in made]


def _archives(lab: Lab) -> list[Entry]:
    """The packages of every declared environment, from its lock; fetched where they are not here."""
    work = lab.work("archives")
    found: dict[str, Entry] = {}
    for address in lab.declarations:
        if address.kind != "env":
            continue
        text = (lying(address.name, lab.locks) / f"{address.name}.conda-lock.yml").read_text()
        for one in archives.locked(text, lab.host.platform):
            if one.name not in found:
                path = archives.obtain(lab.state, one, work.check, lambda n: None)
                found[one.name] = Entry(f"archives/{one.name}", path, one.sha256)
    return list(found.values())


def _models(lab: Lab, links: dict[str, str], copies: dict[str, str]) -> list[Entry]:
    """What the stores hold for recorded models, quantizations and datasets: views, and the files behind them."""
    stores = {n: p for n, p in _places.of(lab).items() if n.startswith("store ")}
    found: dict[str, Entry] = {}
    for record in lab.records.values():
        view = record.facts.get("view")
        if not isinstance(view, str):
            continue
        name = next((n for n, p in stores.items() if view.startswith(f"{p}/")), "")
        if not name:
            continue
        root, top = Path(stores[name]), Path(view)
        if record.address.kind == "dataset":
            top = top.parent
        for path in sorted(top.rglob("*")):
            inside = f"store/{name.partition(' ')[2]}/{path.relative_to(root).as_posix()}"
            if path.is_symlink():
                real = Path(os.path.realpath(path))
                if real.is_relative_to(root):
                    blob = real
                    links[inside] = os.readlink(path)
                elif real.is_file():  # another tool's file: it becomes a blob of the new store, the link leads there
                    sha256 = str(record.facts.get("files", {}).get(path.relative_to(top).as_posix()))
                    blob = Path(layout.blob(str(root), sha256))
                    links[inside] = os.path.relpath(blob, path.parent)
                else:
                    raise problem(f"{path} of {record.address} leads nowhere", do="run `lab apply` to repair it")
                if real.is_file():
                    at = f"store/{name.partition(' ')[2]}/{blob.relative_to(root).as_posix()}"
                    known = blob.name if len(blob.name) == 64 else ""
                    found[at] = Entry(at, real, known)
            elif path.is_file() and path.name != ".lock":
                known = path.name if len(path.name) == 64 else ""
                found[inside] = Entry(inside, path, known)
    return [*found.values(), *_sources(lab, found.values(), copies)]


def _sources(lab: Lab, stored: Iterable[Entry], copies: dict[str, str]) -> list[Entry]:
    """Files outside the repository that declarations read: what the stores hold of them is not bundled twice."""
    held = {e.sha256: e.name for e in stored if e.sha256}
    found = []
    for record in lab.records.values():
        source = record.facts.get("source")
        path = source.get("path") if isinstance(source, Mapping) else None
        if not isinstance(path, str) or Path(path).resolve().is_relative_to(git.top(lab.root)):
            continue
        top = Path(path)
        for file in [top] if top.is_file() else sorted(p for p in top.rglob("*") if p.is_file()):
            sha256 = str(lab.world().sha256(str(file)))
            if sha256 not in held:
                held[sha256] = f"files/{sha256}"
                found.append(Entry(f"files/{sha256}", file, sha256))
            copies[str(file)] = held[sha256]
    return found


def _state(lab: Lab, stack: ExitStack, links: dict[str, str]) -> list[Entry]:
    """The ledger, the runs and what else is machine-local, consistent, in the shape of a backup's snapshot."""
    settings = {"include": ["state"], "paths": [], "exclude": [], "large": sys.maxsize, "copy_large": True}
    staged = lab.state / "staged" / NAME
    stack.callback(shutil.rmtree, staged, ignore_errors=True)
    saved = gather(lab, NAME, settings, staged)
    held = lab.state / "staged"
    files = [Path(p) for p in saved.manifest["files"] if not Path(p).is_relative_to(held)]
    files += [p for p in sorted(staged.rglob("*")) if p.is_file()]
    for path, target in saved.manifest["links"].items():
        links[f"snapshot{path}"] = target
    return [Entry(f"snapshot{p}", p) for p in files]
