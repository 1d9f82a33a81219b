"""Frameworks: which version stands where, and the performer of their smoke tests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.adapters import closed
from lab.adapters.files import put
from lab.core.facts import Facts
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_envs import TestFramework

SMOKE = "recipes/env/smoke"
ENDPOINT = ("LAB_ENDPOINT", "LAB_ENDPOINT_MODEL")
"""Where a smoke test finds an OpenAI-compatible server, and its model's name there."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a smoke test ended."""

    framework: str
    where: str
    works: bool
    version: str = ""
    device: str = ""
    tested: tuple[str, ...] = ()
    step: str = ""
    """The step that failed; empty where it works."""
    why: str = ""
    notes: str = ""
    seconds: float = 0.0
    at: int = 0
    identity: str = ""
    """What was tested: a version, or the program's size and time; another one is tested again."""


def observe(result: str, distribution: str = "", program: str = "", link: str = "") -> dict[str, Any] | None:
    """`{installed, works, version}` as last tested, if what was tested still stands; None where it was not. Reads."""
    try:
        said = json.loads(Path(result).read_bytes())
    except (OSError, ValueError):
        return None
    now = identity(distribution, program, link)
    return {"works": bool(said["works"]) and now == said["identity"], "version": said["version"], "identity": now}


def identity(distribution: str, program: str, link: str) -> str:
    """What stands there now, read without running it; empty where nothing does. Reads."""
    if program:
        found = shutil.which(program)
        if not found:
            return ""
        s = os.stat(os.path.realpath(found))
        return f"{os.path.realpath(found)} {s.st_size} {s.st_mtime_ns}"
    if link:
        return in_prefix(os.path.realpath(link), distribution)
    if not distribution:
        return "what its smoke line finds"
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return ""


def in_prefix(prefix: str, distribution: str) -> str:
    """`NAME VERSION` of a Python distribution in a prefix, by folder names; empty where it is not. Reads."""
    if not distribution:
        return os.path.basename(prefix) if os.path.isdir(prefix) else ""
    stem = distribution.replace("-", "_").lower()
    for site in Path(prefix).glob("lib/python*/site-packages"):
        for name in os.listdir(site):
            head, _, rest = name.partition("-")
            if rest.endswith(".dist-info") and head.lower().replace("-", "_").replace(".", "_") == stem:
                return f"{distribution} {rest.removesuffix('.dist-info')}"
    return ""


def shipped(name: str) -> Path | None:
    """The smoke test that comes with Lab for a framework; None where there is none. Reads."""
    home = Path(__file__).resolve().parents[1]
    found = (base / SMOKE / f"smoke_{name}.py" for base in (home / "_shipped", home.parent))
    return next((f for f in found if f.is_file()), None)


def probe(
    step: TestFramework, check: Callable[[], None], distribution: str = "", endpoint: Mapping[str, str] | None = None
) -> Result:
    """The result of a smoke test, run closed in its env, in Lab's own Python, or against a program.

    `endpoint` is where it finds a model to talk to (`ENDPOINT`); without, what the caller's environment says of it.
    """
    where = f"env {Path(step.link).name}" if step.link else f"program {step.program}" if step.program else "lab"
    now = identity(distribution, step.program, step.link)
    begun = time.perf_counter()
    if not now:
        return Result(step.framework, where, False, step="find", why="not installed", at=int(time.time()))
    script = shipped(step.framework)
    python = str(Path(os.path.realpath(step.link), "bin", "python")) if step.link else sys.executable
    variables = {str(k): str(v) for k, v in (step.variables or {}).items()}
    if step.program:
        variables["PROGRAM"] = shutil.which(step.program) or step.program
    variables |= {k: os.environ[k] for k in ENDPOINT if k in os.environ} if endpoint is None else endpoint
    if step.smoke:
        command = ["/bin/sh", "-c", step.smoke]
    elif script is None:
        return Result(step.framework, where, False, step="find", why="Lab has no test for it", at=int(time.time()))
    else:
        command = [python, str(script)]
    home = os.path.realpath(step.link) if step.link else sys.prefix
    done = closed.run(home, command, variables, check, timeout=300)
    seconds = round(time.perf_counter() - begun, 2)
    said, last = _read(done.text)
    base: dict[str, Any] = {
        "framework": step.framework,
        "where": where,
        "seconds": seconds,
        "at": int(time.time()),
        "identity": now,
    }
    if done.returncode:
        lines = [line for line in done.text.strip().splitlines() if line.strip()]
        return Result(**base, works=False, step=last or "run", why=(lines[-1] if lines else "no output")[:300],
                      version=_version(now, distribution))  # fmt: skip
    return Result(
        **base,
        works=True,
        version=str(said.get("version") or _version(now, distribution)),
        device=str(said.get("device", "")),
        tested=tuple(said.get("tested", ("its smoke line",))),
        notes=str(said.get("notes", "")),
    )


def _version(now: str, distribution: str) -> str:
    return now.rpartition(" ")[2] if distribution else ""


def _read(text: str) -> tuple[Mapping[str, Any], str]:
    last, said = "", {}
    for line in text.splitlines():
        if line.startswith("step: "):
            last = line[6:].strip()
        elif line.startswith("{"):
            with contextlib.suppress(ValueError):
                said = json.loads(line)
    return said, last


def test(step: TestFramework, stage: Stage) -> Facts:
    """The framework passed its smoke test, and the result is kept under `state/frameworks/`."""
    from lab.core.frameworks import KNOWN

    known = KNOWN.get(step.framework)
    result = probe(step, stage.check, known.distribution if known and not step.program else "")
    keep(result, stage.state, step.name)
    if not result.works:
        hint = f"install it: {known.install}" if known and known.install and result.step == "find" else ""
        template = f"add it to the env, or start from `template: {known.template}`" if known and known.template else ""
        raise problem(
            f"{step.framework} does not work ({result.where}): step `{result.step}` failed",
            why=result.why,
            do=hint
            or (template if result.step in ("find", "import") else "")
            or "see what the step says, then apply again",
        )
    return {"version": result.version, "said": f"{result.framework} {result.version} works {result.device}".strip()}


def keep(result: Result, state: Path, name: str) -> None:
    """A result is kept for plans and for the matrix."""
    text = json.dumps(asdict(result), indent=1, sort_keys=True, ensure_ascii=False)
    put(state / "frameworks" / f"{name}.json", text.encode())
