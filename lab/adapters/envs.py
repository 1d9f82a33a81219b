"""Environments: the performers that install, repair and remove prefixes, and what the plan asks about them.

`<envs>/NAME` is a link to `<envs>/.made/NAME/<lock digest>-<n>`. A prefix is built beside the old one, checked to the
byte, stamped, and only then does the link move: a kill leaves the old env or the new one. The prefix before stays until
the next one is made, so that running processes keep their files.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.adapters import archives, conda, container, prefix, survey, uv
from lab.adapters.closed import run
from lab.adapters.envlock import cache, ensure_channels, expanded, known, parsed, summary, uv_cache
from lab.core.facts import Facts
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_envs import InstallEnv, RemoveEnv

MADE = ".made"


def observe(link: str, depth: int = 0) -> dict[str, Any] | None:
    """The facts of the env behind a link; see `lab.adapters.prefix`. Reads."""
    return prefix.observe(link, depth)


def install(step: InstallEnv, stage: Stage) -> Facts:
    """The link leads to an intact prefix of the lock: repaired where one stands, else built beside and switched to."""
    lock = summary(step.name, stage)
    part = lock.get("platforms", {}).get(step.platform)
    if part is None:
        raise problem(
            f"the lock of env.{step.name} has nothing for {step.platform}"
            if lock
            else f"env.{step.name} is not locked",
            why=f"it holds {', '.join(lock.get('platforms', {})) or 'no platform'}" if lock else "",
            do=f"run `lab lock env.{step.name}` and commit what it writes",
        )
    if step.lock and step.lock != part["digest"]:
        raise problem(f"the lock of env.{step.name} changed after the plan", do="plan again")
    link = Path(step.link)
    if step.container:
        container.write(
            Path(step.container), step.name, parsed(step.name, known(step.name, stage)), lock, step.platform
        )
    with _alone(link):
        _sweep(link)
        here = Path(os.path.realpath(link))
        stamp = prefix.read_stamp(str(here)) if link.is_symlink() else None
        if stamp and stamp.get("lock") == part["digest"]:
            damaged = prefix.damage(str(here), 2)
            if not damaged or _repair(step, stage, here, lock, damaged):
                said = f"repaired {prefix.summary(damaged)}" if damaged else ""
                _stamp(here, {**stamp, "spec": lock["inputs"], "variables": dict(step.variables or {})})
                return {"content_digest": stamp["content_digest"], "said": said}
        return _build(step, stage, link, lock)


def _build(step: InstallEnv, stage: Stage, link: Path, lock: dict[str, Any]) -> Facts:
    part = lock["platforms"][step.platform]
    folder = link.parent / MADE / step.name
    fresh = folder / f"{part['digest'][:12]}-{secrets.token_hex(3)}"
    fresh.mkdir(parents=True)
    try:
        found = _filled(step, stage, fresh, lock)
        if found["wrong"]:
            # A copy in the shared cache was damaged (a hardlink edited in place): fetch those packages anew.
            _evict(stage, found["wrong"])
            shutil.rmtree(fresh)
            fresh.mkdir()
            found = _filled(step, stage, fresh, lock)
        if found["wrong"]:
            raise problem(
                f"env.{step.name} cannot be installed as locked",
                why="; ".join(f"{rel}: {what}" for rel, what in sorted(found["wrong"].items())[:3]),
                do="a package's archive does not hold what it says; try another build of it",
            )
        smoke(step, stage, fresh)
        version = part["packages"].get("python") or lock.get("python", "")
        stamp = {
            "format": 1,
            "name": step.name,
            "platform": step.platform,
            "spec": lock["inputs"],
            "lock": part["digest"],
            "content_digest": found["content"],
            "python": version,
            "variables": dict(step.variables or {}),
            "packages": part["packages"],
            "bytes": found["bytes"],
            "files": found["files"],
            "made": int(time.time()),
        }
        if step.commands:
            # A smoke test may have changed folders that the plan looks at.
            survey.put(fresh / prefix.OURS / "dirs.json", prefix.folders(str(fresh)))
        _stamp(fresh, stamp)
        (folder / ".before").write_text(os.path.basename(os.path.realpath(link)))
        switch(link, fresh)
        _sweep(link)
    except BaseException:
        if os.path.realpath(link) != str(fresh):
            shutil.rmtree(fresh, ignore_errors=True)
        raise
    return {"content_digest": found["content"], "said": f"{found['files']} files"}


def _filled(step: InstallEnv, stage: Stage, target: Path, lock: dict[str, Any]) -> dict[str, Any]:
    """What `survey.filed` says of the prefix once it is filled; told by the process that linked it, where one did."""
    fill(step, stage, target, lock)
    if not lock["platforms"][step.platform]["conda"]:
        return survey.filed(str(target))
    found: dict[str, Any] = conda.ask("survey", {"prefix": str(target)}, stage.check)
    return found


def fill(step: InstallEnv, stage: Stage, target: Path, lock: dict[str, Any]) -> None:
    """The packages of the lock are in `target`, which was empty."""
    _conda(step, stage, target, lock)
    part = lock["platforms"][step.platform]
    if part["pip"] or ("python" not in part["packages"] and lock.get("python")):
        if not (target / "bin" / "python").exists():
            uv.venv(target, lock["python"])
        wheels = _wheels(step, stage)
        stage.progress(part["conda"], part["conda"] + part["pip"], "packages")
        uv.install(target, wheels, cache=uv_cache(stage), offline=stage.offline, check=stage.check)
    stage.progress(part["conda"] + part["pip"], part["conda"] + part["pip"], "packages")


def _conda(step: InstallEnv, stage: Stage, target: Path, lock: dict[str, Any], reinstall: tuple[str, ...] = ()) -> None:
    if not lock["platforms"][step.platform]["conda"]:
        return
    ensure_channels(known(step.name, stage) / lock["lockfile"], stage)
    with expanded(known(step.name, stage) / lock["lockfile"], stage) as lockfile:
        conda.ask(
            "install",
            {
                "lockfile": str(lockfile),
                "platform": step.platform,
                "prefix": str(target),
                "cache": str(cache(stage)),
                "reinstall": list(reinstall),
                "offline": stage.offline,
            },
            stage.check,
        )


def _wheels(step: InstallEnv, stage: Stage) -> list[dict[str, Any]]:
    found = parsed(step.name, known(step.name, stage))
    return [
        {
            "name": p["name"],
            "version": p["version"],
            "sha256": p["hash"]["sha256"],
            "url": archives.find(stage.state, p["url"], p["hash"]["sha256"]),
        }
        for p in found["package"]
        if p["manager"] == "pip" and p["platform"] == step.platform
    ]


def _repair(step: InstallEnv, stage: Stage, here: Path, lock: dict[str, Any], damaged: dict[str, str]) -> bool:
    """Whether the damaged files, and only their packages, are as installed again, from copies that are clean."""
    if any(rel.startswith(prefix.OURS) for rel in damaged):
        return False
    files = json.loads((here / prefix.OURS / "files.json").read_bytes())
    own = {rel: files[rel][4] for rel in damaged if rel in files}
    shutil.rmtree(here / prefix.OURS / "pycache", ignore_errors=True)
    if "lab" in own.values():
        return False
    for rel in damaged.keys() - own.keys():
        stage.say(f"removed {rel}: no package of env.{step.name} brought it")
        (here / rel).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for parent in (here / rel).parents:
                if parent == here:
                    break
                parent.rmdir()
    _evict(stage, {rel: f"edited ({owner})" for rel, owner in own.items()})
    for rel in own:
        # Never written through: another env may share the file.
        with contextlib.suppress(FileNotFoundError):
            (here / rel).unlink()
    of_conda = tuple(sorted({o.partition(":")[2].rpartition(" ")[0] for o in own.values() if o.startswith("conda:")}))
    of_pip = {uv.normalized(o.partition(":")[2].rpartition(" ")[0]) for o in own.values() if o.startswith("pip:")}
    if of_conda:
        _conda(step, stage, here, lock, reinstall=of_conda)
    if of_pip:
        wheels = [w for w in _wheels(step, stage) if uv.normalized(w["name"]) in of_pip]
        uv.install(here, wheels, cache=uv_cache(stage), offline=stage.offline, reinstall=True, check=stage.check)
    now, wrong, content = prefix.survey(str(here))
    stamp = prefix.read_stamp(str(here)) or {}
    if wrong or content != stamp.get("content_digest") or now.keys() != files.keys():
        return False
    survey.record(here, now)
    return True


def _evict(stage: Stage, damaged: dict[str, str]) -> None:
    owners = {what.partition("(")[2].partition(")")[0].partition(",")[0] for what in damaged.values()}
    names = {o.partition(":")[0]: set() for o in owners}  # type: dict[str, set[str]]
    for o in owners:
        names[o.partition(":")[0]].add(o.partition(":")[2].rpartition(" ")[0])
    conda.evict(cache(stage), sorted(names.get("conda", ())))
    uv.evict(uv_cache(stage), sorted(names.get("pip", ())))


def smoke(step: InstallEnv, stage: Stage, target: Path) -> None:
    """Every smoke test of the env passes in a prefix; the first that fails is a problem."""
    for command in step.commands:
        stage.check()
        done = run(target, ["/bin/sh", "-c", command], dict(step.variables or {}), stage.check)
        if done.returncode:
            raise problem(
                f"the smoke test of env.{step.name} failed: {command}",
                why=f"exit status {done.returncode}: {done.text.strip()[-500:]}",
                do="mend the env or the test; the env that was there before is untouched",
            )


def remove(step: RemoveEnv, stage: Stage) -> None:
    """Neither the link nor a prefix of the env is left; raises a Problem where something still runs in one."""
    link = Path(step.link)
    folder = link.parent / MADE / step.name
    _unused(folder, stage)
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    doomed = folder.with_name(f".{step.name}.gone")
    if folder.exists():
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
    for parent in (link.parent / MADE, link.parent):
        with contextlib.suppress(OSError):
            parent.rmdir()


def _unused(folder: Path, stage: Stage) -> None:
    if folder.is_dir() and any(in_use(p) for p in folder.iterdir() if p.is_dir()):
        raise problem(
            f"{stage.address} is in use",
            why="a run, `lab env run` or `lab env shell` still runs in it",
            do="wait for it, or `lab stop` the run (see `lab runs`); then do this again",
        )


# --- switching -------------------------------------------------------------------------------------------------------


def switch(link: Path, target: Path) -> None:
    """The link leads to `target`, in one step."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(3)}.lab-tmp")
    os.symlink(os.path.relpath(target, link.parent), temporary)
    os.replace(temporary, link)


@contextlib.contextmanager
def _alone(link: Path) -> Iterator[None]:
    """No other process makes this env meanwhile."""
    folder = link.parent / MADE / link.name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def _sweep(link: Path) -> None:
    """Only the prefix in use, the one before it, and those something still runs in are left of what was ever made."""
    folder = link.parent / MADE / link.name
    keep = {os.path.basename(os.path.realpath(link))}
    with contextlib.suppress(OSError):
        keep.add((folder / ".before").read_text())
    for p in folder.iterdir():
        if p.is_dir() and p.name not in keep and not in_use(p):
            shutil.rmtree(p, ignore_errors=True)
    for p in link.parent.glob(f".{link.name}.*.lab-tmp"):
        p.unlink(missing_ok=True)


def in_use(target: Path) -> bool:
    """Whether `lab env run` or `shell` holds a prefix: they keep a shared lock on it while they run."""
    try:
        with (target / prefix.OURS / "lease").open("a") as f:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _stamp(target: Path, stamp: Facts) -> None:
    survey.put(target / prefix.OURS / "stamp.json", stamp)
