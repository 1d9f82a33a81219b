"""Experiments: a step becomes a run's spec, and a finished run becomes what the lab points to."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.adapters import admission, child, mlflow_local, queue
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_runs import Execute, Forget
from lab.runs import provenance, record
from lab.runs.folder import RunFolder, new_id, put, tidy
from lab.runs.outcome import measured, tree
from lab.runs.run import Handle, RunSpec, again, launch

_PLACE = re.compile(r"\{([A-Za-z_][\w.-]*)\}")
_HOME = Path(__file__).resolve().parents[2]


def begin(
    step: Execute, stage: Stage, *, adopt: bool = True, run: str = "", enter: Callable[[], Any] = contextlib.nullcontext
) -> Handle:
    """A new run of the experiment, or `run` which never began, is started; raises Problems where it cannot be.

    With `adopt` the experiment points to it when it has finished: it is the declared one, not one with overrides, which
    take no alias either. Within `enter` the run comes to be seen by who would change what it reads.
    """
    if step.require_clean:
        provenance.clean(stage.root, f"experiment.{step.name}")
    folder = stage.state / "runs" / (run or new_id(step.name))
    tidy(folder)
    spec, inputs = build(step, stage, folder)
    spec = queue.placed(spec, last(stage.state, step))
    queue.submit(stage.state, spec)
    if adopt:
        spec = replace(spec, after=(*spec.after, "lab.adapters.experiments:adopted"))
    elif spec.register:
        spec = replace(spec, register={**spec.register, "aliases": []})
    spec = replace(spec, expects=spec.memory or expected(stage.state, step))
    for kind in ("models", "datasets"):
        for name, one in spec_given(step, kind).items():
            if one.get("levels"):
                parts = {f"{level}/{n}": h for level, p in one["levels"].items() for n, h in content(Path(p)).items()}
                inputs[kind][name] = {**one, "content": parts}
                continue
            if not Path(str(one["path"])).exists():
                what = one.get("address") or name
                raise problem(
                    f"{what} is not there", why=f"{one['path']} does not exist", do=f"run `lab apply --only {what}`"
                )
            inputs[kind][name] = {**one, "content": content(Path(str(one["path"])))}
    db = Path(str(spec.tracker["db"]))
    with contextlib.suppress(mlflow_local.Unready):
        mlflow_local.prepare(db)
    if inputs["git"].get("dirty"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "patch.diff").write_bytes(provenance.patch(stage.root))
    secrets = {name: stage.secret(str(reference)) for name, reference in step.secrets.items()}
    return launch(spec, inputs, secrets, enter=enter)


def build(
    step: Execute, stage: Stage, folder: Path, known: Mapping[str, Any] | None = None
) -> tuple[RunSpec, dict[str, Any]]:
    """The run's spec and its inputs' record, all names in its command replaced.

    `known` is an earlier record of the same sweep: machine, commit and interpreter are taken from it, not read again.
    """
    given = dict(step.spec)
    prefix = str(given.pop("prefix", ""))
    python = f"{prefix}/bin/python" if prefix else sys.executable
    command, notebook = given.pop("command", None), given.pop("notebook", "")
    start = given.pop("launch", {})
    env = dict(given.pop("env", {}))
    path = [str(p) for p in given.pop("path", ())]
    inputs = {**(known or provenance.here(stage.root)), **step.inputs, "params": given["params"], "seed": given["seed"]}
    inputs |= {"secrets": dict(step.secrets), "models": dict(given["models"]), "datasets": dict(given["datasets"])}
    inputs["interpreter"] = known["interpreter"] if known else provenance.interpreter(python)
    cwd = str(given.pop("cwd"))
    if step.source:
        code = clone(step.source, folder)
        inputs["code_source"] = {**step.source, "commit": provenance.git(code)["commit"]}
        path, cwd = [str(code)], str(code)
    if not prefix:
        env = {**child.preload(), **env}
    path = [_shipped(p, stage.root) for p in path]
    if prefix:
        env = {"PATH": f"{prefix}/bin:{os.environ.get('PATH', '')}", "CONDA_PREFIX": prefix, **env}
    env["PYTHONPATH"] = os.pathsep.join([*path, *recipes(), str(sdk(stage.state) if prefix else _HOME)])
    db = mlflow_local.database(stage.state)
    tracking = step.inputs.get("tracking") or {}
    env.setdefault("MLFLOW_TRACKING_URI", mlflow_local.uri(db))
    env.setdefault("MLFLOW_RUN_ID", mlflow_local.run_id(folder.name))
    env.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    argv: list[str] = []
    if notebook:
        argv = [python, "-m", "lab.sdk.notebook", notebook]
    elif command is not None:
        names = {
            **_flat(given["params"]),
            **{f"models.{n}": m["path"] for n, m in given["models"].items()},
            **{f"datasets.{n}": d["path"] for n, d in given["datasets"].items()},
            **{f"outputs.{n}": str(folder / "outputs" / p) for n, p in given["outputs"].items()},
            "seed": given["seed"],
            "run": str(folder),
            "python": python,
            "checkpoints": str(folder / "checkpoints"),
        }
        argv = (
            ["sh", "-c", fill(command, names, shell=True)]  # nosec B604 # starts nothing: quotes for a shell
            if isinstance(command, str)
            else [fill(w, names) for w in command]
        )
    if start:
        words = shlex.split(fill(command, names, shell=True)) if isinstance(command, str) else argv  # nosec B604 # starts nothing: quotes for a shell
        argv = launched(str(start["launcher"]), int(start["processes"]), words, python)
    after = []
    if step.record:
        after.append("lab.adapters.experiments:recorded")
    if step.register:
        after.append("lab.adapters.registry:registered")
    spec = RunSpec.of(
        given,
        folder=folder,
        argv=tuple(argv),
        python=python,
        prefix=prefix,
        env=env,
        cwd=cwd,
        path=tuple(path),
        digest=step.digest,
        goal=step.goal,
        keep=step.keep,
        secrets=tuple(step.secrets),
        after=tuple(after),
        record=step.record,
        register=step.register,
        admit="lab.adapters.queue:admitted",
        drowning="lab.adapters.footprint:drowning",
        tracker={
            **tracking,
            "shipper": "lab.adapters.spool:Shipper",
            "db": str(db),
            "project": inputs.get("project") or tracking.get("project") or step.name,
        },
    )
    return spec, inputs


def expected(state: Path, step: Execute) -> int | None:
    """Bytes that a run which declares none is let in for: what its last took, else what its models weigh. Reads."""
    took = last(state, step).get("max_rss")
    if not took:
        models = spec_given(step, "models").values()
        paths = [max(m["levels"].values(), key=_weight) if m.get("levels") else m["path"] for m in models]
        took = sum(_weight(str(p)) for p in paths)
    return int(took) if took >= admission.SMALL else None


def last(state: Path, step: Execute) -> dict[str, Any]:
    """The result of the run that the experiment points to; empty where to none. Reads."""
    return RunFolder(state / "runs" / str(pointer(state, step.name).get("run") or "none")).result


def _weight(path: str) -> int:
    found = Path(path)
    files = found.rglob("*") if found.is_dir() else [found]
    return sum(f.stat().st_size for f in files if f.is_file())


def spec_given(step: Execute, kind: str) -> Mapping[str, Mapping[str, Any]]:
    """What the step gives of `models` or `datasets`. Pure."""
    return step.spec.get(kind) or {}


def _shipped(path: str, root: Path) -> str:
    """A folder of the lab; where it is not there and came with Lab, that one."""
    return path if os.path.isdir(path) else str(_HOME / os.path.relpath(path, root))


def recipes() -> tuple[str, ...]:
    """The folder that holds `recipes/` where Lab was installed from a wheel; nothing in its own repository. Reads."""
    folder = _HOME / "lab" / "_shipped"
    return (str(folder),) if folder.is_dir() else ()


def fill(text: str, names: Mapping[str, Any], *, shell: bool = False) -> str:
    """`text` with `{name}` replaced, quoted for a shell where it is one; doubled braces become single ones. Pure."""

    def value(m: re.Match[str]) -> str:
        if m[1] not in names:
            return m[0]
        found = names[m[1]]
        plain = found if isinstance(found, str) else json.dumps(found)
        return shlex.quote(plain) if shell else plain

    parts = re.split(r"(\{\{|\}\})", text)
    return "".join(p[0] if p in ("{{", "}}") else _PLACE.sub(value, p) for p in parts)


def launched(launcher: str, processes: int, words: Iterable[str], python: str = sys.executable) -> list[str]:
    """The command line by which a framework's own launcher starts a script. Reads.

    The launcher is the one beside the interpreter; where there is none, the shell's.
    """
    beside = Path(python).with_name(launcher)
    program = str(beside) if beside.exists() else launcher
    first, *rest = words
    script = rest if first in ("python", "python3", python) else [first, *rest]
    if launcher == "torchrun":
        return [program, "--standalone", f"--nproc-per-node={processes}", *script]
    return [python, "-m", "lab.sdk.ranks", program, str(processes), python, *script]


def clone(source: Mapping[str, Any], folder: Path) -> Path:
    """A fresh clone of the declared ref, in the run's folder; raises Problems where git refuses."""
    target = folder / "code"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / "code.new"
        shutil.rmtree(fresh, ignore_errors=True)  # What a killed clone left: git clones into nothing else.
        ref = str(source.get("ref") or "HEAD")
        get = ["clone", "--quiet", str(source["git"]), str(fresh)]
        for args in (get, ["-C", str(fresh), "checkout", "--quiet", "--detach", ref]):
            done = subprocess.run(
                ["git", *args], capture_output=True, text=True, env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}
            )
            if done.returncode:
                why = (done.stderr.strip().splitlines() or ["git said nothing"])[-1]
                raise problem(
                    f"the code {source['git']} cannot be had", why=why, do="check `source.git` and `source.ref`"
                )
        os.replace(fresh, target)
    return target


def sdk(state: Path) -> Path:
    """A folder from which any Python imports `lab.sdk` and the recipes, and nothing else of ours."""
    home = state / "sdk"
    package = home / "lab"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    links = {package / "sdk": Path(__file__).resolve().parents[1] / "sdk", home / "recipes": _HOME / "recipes"}
    for link, target in links.items():
        if target.is_dir() and (not link.is_symlink() or os.readlink(link) != str(target)):
            temporary = link.with_name(f".{link.name}.{os.getpid()}")
            temporary.symlink_to(target)
            os.replace(temporary, link)
    return home


def content(path: Path, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Relative path → SHA-256 of what a run is given; a file's own path is empty. Reads.

    A view of the store says its hashes itself: they were verified when it was made. With `known`, to verify again,
    every byte is read.
    """
    path = path.resolve()
    noted = path / ".lab.json"
    if known is None and noted.is_file():
        with contextlib.suppress(OSError, ValueError, AttributeError):
            files = json.loads(noted.read_text()).get("files") or {}
            found = {str(n): str(f.get("sha256") if isinstance(f, Mapping) else f) for n, f in files.items()}
            if found:
                return found
    made = tree(path)
    hashes: dict[str, str] = made.get("hashes") or {"": made["sha256"]}
    return {n: h for n, h in hashes.items() if n != ".lab.json"}


def adopted(folder: RunFolder) -> None:
    """The experiment points to this run, if it has finished."""
    if folder.result.get("state") == "finished":
        settle(folder)


def recorded(folder: RunFolder) -> None:
    """The run's Markdown record is where the experiment wants it."""
    record.write(folder, Path(str(folder.spec["record"])), str(folder.spec.get("goal", "")))


def settle(folder: RunFolder) -> None:
    """The lab points to this run: its pointer and the links to its outputs are in place."""
    state, name = folder.path.parents[1], str(folder.spec["name"])
    base = state / "outputs" / name
    base.mkdir(parents=True, exist_ok=True)
    outputs = folder.result.get("outputs") or {}
    for output, one in outputs.items():
        temporary = base / f".{output}.{os.getpid()}.{time.monotonic_ns()}"
        temporary.symlink_to(one["path"])
        os.replace(temporary, base / output)
    for left in base.iterdir():
        if left.name not in outputs:
            left.unlink(missing_ok=True)
    point(state, name, {"run": folder.id, "digest": folder.spec.get("digest", "")})


def pointer(state: Path, name: str) -> dict[str, Any]:
    """Which run an experiment points to, and of which digest; empty where to none. Reads."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((state / "experiments" / f"{name}.json").read_text())
        return found if isinstance(found, dict) else {}
    return {}


def point(state: Path, name: str, value: Mapping[str, Any]) -> None:
    """The experiment points there."""
    path = state / "experiments" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path.parent)
    put(path, json.dumps(dict(value), sort_keys=True) + "\n")


def whole(folder: RunFolder) -> bool:
    """Whether a finished run's outputs are, byte for byte, what it made. Reads."""
    made = folder.result.get("outputs") or {}
    now, missing = measured(folder)
    return not missing and all(now[n]["sha256"] == made[n]["sha256"] for n in made)


def resume(folder: RunFolder, stage: Stage, secrets: Mapping[str, Any]) -> Handle:
    """The run goes on in its folder."""
    return again(folder, {name: stage.secret(str(reference)) for name, reference in secrets.items()})


def forget(step: Forget, stage: Stage) -> None:
    """Nothing points to a run of the experiment any more."""
    (stage.state / "experiments" / f"{step.name}.json").unlink(missing_ok=True)
    base = stage.state / "outputs" / step.name
    if base.is_dir():
        for link in base.iterdir():
            link.unlink()
        base.rmdir()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found[f"{prefix}{key}"] = value
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
    return found
