"""guest_run: an experiment as it is handed to a guest: its spec, its inputs, its code, and nothing else of the lab."""

from __future__ import annotations

import base64
import os
import pwd
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.adapters import experiments
from lab.app.lab import Lab
from lab.app.run import step_of, translate
from lab.core.address import Address
from lab.core.guest_files import KIT, PYTHON
from lab.core.problem import did_you_mean, problem
from lab.core.steps_runs import Execute
from lab.core.units import size
from lab.runs.folder import new_id

CODE = 32 << 20
"""Bytes of code at most: what is larger belongs in a dataset."""
LEFT_OUT = (".git", "state", "__pycache__", ".venv", "node_modules")
KEPT = ("params", "seed", "models", "datasets", "env", "code", "interpreter")
"""What of a run's inputs a guest is told; not who the owner is, nor where their repository lies."""


def opened(rights: Mapping[str, Any], address: str) -> bool:
    """Whether a guest may use a resource: it is named, or the ladder it is a level of. Pure."""
    return any(address == m or address.startswith(f"{m}.") for m in rights.get("may", ()))


def named(lab: Lab, rights: Mapping[str, Any], name: str) -> Address:
    """The experiment a guest means; a Problem where it is not opened to them, whether or not there is one."""
    address = Address(name if name.startswith("experiment.") else f"experiment.{name}")
    given = [m for m in rights.get("may", ()) if str(m).startswith("experiment.")]
    if not opened(rights, address):
        names = [m.partition(".")[2] for m in given]
        raise problem(
            f"`{name}` is not opened to you{did_you_mean(name, names)}",
            why=f"you may run {', '.join(names)}" if names else "no experiment is",
            do="see `lab list`, or ask the owner of the lab",
        )
    if address not in lab.declarations:
        levels = [a for a in lab.declarations if a.startswith(f"{address}.")]
        raise problem(
            f"`{name}` is no single experiment" if levels else f"`{name}` is not declared now",
            why=f"it is {', '.join(a.partition('.')[2] for a in levels[:6])}" if levels else "the owner took it out",
            do="name one of them" if levels else "see `lab list`",
        )
    return address


def changed(lab: Lab, address: Address, words: Sequence[str]) -> list[str]:
    """A guest's `lr=0.1` and `seed=7` as overrides of the lab; Problems for all else, which would change the lab."""
    declaration: Any = lab.declaration(address)
    out = []
    for word in words:
        key, mark, value = word.partition("=")
        known = [*declaration.params, "seed"]
        if not mark or key.partition(".")[0] not in known or not key.replace(".", "").replace("_", "").isalnum():
            raise problem(
                f"`{word}` is not yours to change{did_you_mean(key, known)}",
                why=f"guests may set {', '.join(known)} of {address}",
                do="write NAME=VALUE",
            )
        if "$" in value or "\n" in value:
            raise problem(f"`{word}` refers to something", why="a guest's value is a plain value", do="write it out")
        out.append(translate(lab, address, word))
    return out


def composed(lab: Lab, rights: Mapping[str, Any], words: Sequence[str]) -> tuple[Lab, Address]:
    """The lab with what a guest sets of an experiment, `NAME [PARAMETER=VALUE …]`; Problems for what is not theirs."""
    address = named(lab, rights, words[0])
    theirs = lab.again(changed(lab, address, words[1:]))
    if _read(theirs, address) != _read(lab, address):
        raise problem(
            f"`{' '.join(words[1:])}` is not yours to change",
            why=f"the declaration of {address} refers to it for the files that a run is given",
            do="ask the owner of the lab",
        )
    return theirs, address


def _read(lab: Lab, address: Address) -> list[Any]:
    """What of a declaration says which files are read with the owner's rights."""
    declaration: Any = lab.declaration(address)
    counted = [] if declaration.source else _counted(lab, address)
    return [
        counted,
        *(getattr(declaration, n) for n in ("source", "path", "cwd", "env", "call", "notebook", "secrets")),
    ]


def handed(lab: Lab, address: Address, name: str, rights: Mapping[str, Any]) -> dict[str, Any]:
    """`{spec, inputs, files}` of a new run in the guest's home. Raises Problems where a guest cannot run it."""
    step = step_of(lab, address)
    _possible(lab, step, address, rights)
    folder = Path(pwd.getpwnam(name).pw_dir) / "lab" / "runs" / new_id(step.name)
    code, own = folder / "code", {**step.spec, "isolation": "process", "cards": 0, "quotas": {}}
    scratch = lab.state / "work" / "guests" / folder.name
    try:
        top = experiments.clone(step.source, scratch) if step.source else lab.root
        named_files = None if step.source else _counted(lab, address)
        files = dict(_files(top, named_files))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    plain = Execute(step.name, step.digest, own, step.inputs, keep=step.keep, goal=step.goal)
    stage: Any = lab.work(address)
    spec, inputs = experiments.build(plain, stage, folder)
    prefix = str(own.get("prefix") or "")
    python = f"{prefix}/bin/python" if prefix else PYTHON
    places = {str(lab.root): str(code), spec.python: python}
    path = [str(code)] if step.source else [_moved(p, places) for p in spec.path]
    env = {k: v for k, v in spec.env.items() if not k.startswith("MLFLOW_")}
    env["PATH"] = f"{prefix}/bin:/usr/local/bin:/usr/bin:/bin" if prefix else "/usr/local/bin:/usr/bin:/bin"
    env["PYTHONPATH"] = os.pathsep.join([*path, KIT])
    limits = rights.get("limits") or {}
    most = [m for m in (spec.memory, limits.get("memory")) if m]
    given = {
        **asdict(spec), "folder": str(folder), "python": python, "env": env, "path": path, "tracker": {}, "after": [],
        "record": "", "register": {}, "memory": min(most) if most else None, "secrets": [],
        "cwd": str(code) if step.source else _moved(spec.cwd, places),
        "argv": [_moved(w, places) for w in spec.argv],
    }  # fmt: skip
    told = {k: inputs[k] for k in KEPT if k in inputs}
    told["git"] = {k: v for k, v in inputs["git"].items() if k in ("commit", "branch", "dirty")}
    return {"spec": given, "inputs": told, "files": files}


def _possible(lab: Lab, step: Execute, address: Address, rights: Mapping[str, Any]) -> None:
    if step.secrets:
        raise problem(f"{address} uses secrets of the owner", why="a guest's run cannot be given them")
    used = {*step.inputs.get("env", {}), *(str(g["address"]) for k in ("models", "datasets") for g in _given(step, k))}
    missing = sorted(u for u in used if not opened(rights, u))
    if missing:
        raise problem(
            f"{address} needs {', '.join(missing)}, not opened to you", do="ask the owner to name it in your `may:`"
        )


def _given(step: Execute, kind: str) -> list[Mapping[str, Any]]:
    return list(experiments.spec_given(step, kind).values())


def _counted(lab: Lab, address: Address) -> list[str]:
    declaration: Any = lab.declaration(address)
    context = lab.context(address)
    paths = [os.path.relpath(context.path(p), lab.root) for p in declaration.counted(context)]
    if declaration.command and declaration.cwd != ".":
        paths = [os.path.normpath(os.path.join(declaration.cwd, p)) for p in declaration.counted(context)]
    return [p for p in paths if not p.startswith("..")]


def _files(top: Path, names: Sequence[str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Relative path → its bytes and whether it runs: of the named files and folders, or of all below `top`."""
    total = 0
    for path in [top] if names is None else [top / n for n in names]:
        for file in [path] if path.is_file() else _below(path):
            data = file.read_bytes()
            total += len(data)
            if total > CODE:
                raise problem(f"the code is larger than {size(CODE)}", do="name less in `code:`, or make it a dataset")
            runs = bool(file.stat().st_mode & 0o100)
            yield str(file.relative_to(top)), {"bytes": base64.b64encode(data).decode(), "runs": runs}


def _below(folder: Path) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in LEFT_OUT)
        yield from (p for n in sorted(names) if (p := Path(at, n)).is_file() and not p.is_symlink())


def _moved(text: str, places: Mapping[str, str]) -> str:
    """A path of the lab, as it is in the run's folder; other words stay. Pure."""
    for old, new in places.items():
        if text == old or text.startswith(old + "/"):
            return new + text[len(old) :]
    return text
