"""Locks of environments: solved for all platforms at once, moving only what must move."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.adapters import archives, conda, external, uv
from lab.adapters.channel import build, shipped
from lab.adapters.files import put
from lab.core import stages
from lab.core.envspec import inputs_digest, package, requirements
from lab.core.facts import Facts, digest
from lab.core.problem import Problem, Problems, problem
from lab.core.step import Stage
from lab.core.steps_envs import LockEnv

VIRTUAL = {
    "osx": {"__unix": "0", "__osx": "14.0", "__archspec": "1 m1"},
    "linux": {"__unix": "0", "__linux": "5.10", "__glibc": "2.28"},
    "win": {"__win": "0", "__archspec": "1 x86_64"},
}
"""What a platform is taken to offer where the env does not say; written into every lock."""


_KEYS = {"python", "conda", "pip", "on"}

# --- places ----------------------------------------------------------------------------------------------------------


def cache(stage: Stage) -> Path:
    """Where packages are unpacked and shared from."""
    return stage.state / "cache" / "conda"


def uv_cache(stage: Stage) -> Path:
    """Where Python packages are unpacked and shared from, unless UV_CACHE_DIR says otherwise."""
    return stage.state / "cache" / "uv"


def locks(stage: Stage) -> Path:
    """Where locks are committed: a stage writes its own."""
    return Path(stages.locks(str(stage.root), stage.stage)[0], "env")


def lying(name: str, folders: Sequence[str]) -> Path:
    """The folder of an env's lock: the first that has one, else the last, which all share. Reads."""
    found = [Path(folder, "env") for folder in folders]
    return next((f for f in found if (f / f"{name}.yaml").exists()), found[-1])


def known(name: str, stage: Stage) -> Path:
    """Where the lock lies that an env has here. Reads."""
    return lying(name, stages.locks(str(stage.root), stage.stage))


def environ(stage: Stage) -> dict[str, str]:
    """What stands for machine-local places in a lock, so that it is the same on every machine."""
    return {"LAB_ROOT": str(stage.root), "LAB_CHANNELS": str(stage.state / "cache" / "channels")}


def channel(text: str, stage: Stage) -> tuple[str, str]:
    """A declared channel as it is written in the lock, and as it is read here; a described one is built first."""
    if "://" in text or "/" not in text:
        return text, text
    path = Path(text).expanduser()
    folder = path if path.is_absolute() else stage.root / path
    if not folder.is_dir():
        folder = shipped(text) or folder
    if (folder / "channel.yaml").exists():
        name = f"{folder.name}-{digest((folder / 'channel.yaml').read_text())[:8]}"
        built = build(folder, stage.state / "cache" / "channels" / name)
        return f"file://$LAB_CHANNELS/{name}", built.as_uri()
    if not folder.is_dir():
        raise problem(f"the channel {text} is not there", why=f"{folder} is no folder", do="name a channel or a URL")
    if folder.is_relative_to(stage.root):
        return f"file://$LAB_ROOT/{folder.relative_to(stage.root)}", folder.as_uri()
    return folder.as_uri(), folder.as_uri()


# --- lock ------------------------------------------------------------------------------------------------------------


def lock(step: LockEnv, stage: Stage) -> Facts:
    """The lock answers the spec for all platforms; what still fits stays as it was."""
    spec = dict(step.spec)
    platforms = list(spec["platforms"])
    spec["requirements"] = {p: dict(zip(("conda", "pip"), requirements(spec, p), strict=True)) for p in platforms}
    spec["channels"] = list(spec.get("channels", ()))
    try:
        pairs = [channel(c, stage) for c in spec["channels"]]
    except Problems as e:
        raise placed(e, step.name, stage) from e
    here = dict(pairs)
    spec["channels"] = [written for written, _ in pairs]
    virtual = _virtual(spec, platforms, step.osx)
    old = summary(step.name, stage)
    tried = old or _of_template(str(spec.get("template", "")))
    if not step.pins:
        conda.ready(any(part["conda"] for part in spec["requirements"].values()))
    target = locks(stage) / f"{step.name}.conda-lock.yml"
    try:
        packages = _solve(step, spec, here, virtual, tried, stage)
    except Problems as e:
        raise placed(e, step.name, stage) from e
    stage.check()
    _held(packages, tried)
    for part in packages.values():
        for p in part["conda"]:
            for written, read in here.items():
                if p["url"].startswith(f"{read}/"):
                    p["url"] = written + p["url"][len(read) :]
    if not step.pins:
        conda.write(
            {
                "name": step.name,
                "target": str(target),
                "spec": spec,
                "virtual": virtual,
                "packages": packages,
                "note": inputs_digest(step.spec),
            }
        )
    made = _summarize(step, spec, virtual, packages, target)
    if step.pins:
        for kind in ("conda-lock", "environment", "virtual-packages"):
            (locks(stage) / f"{step.name}.{kind}.yml").unlink(missing_ok=True)
    put(locks(stage) / f"{step.name}.yaml", _yaml(made).encode())
    for line in moved(old, made):
        stage.say(line)
    return made


def _virtual(spec: dict[str, Any], platforms: list[str], osx: str) -> dict[str, dict[str, str]]:
    out = {}
    for platform in platforms:
        said = dict(VIRTUAL[platform.partition("-")[0]])
        if platform.startswith("osx"):
            if osx:
                said["__osx"] = osx
            if platform == "osx-64":
                said["__archspec"] = "1 x86_64"
        out[platform] = {**said, **spec.get("virtual_packages", {}).get(platform, {})}
    return out


def _solve(
    step: LockEnv,
    spec: dict[str, Any],
    here: dict[str, str],
    virtual: dict[str, dict[str, str]],
    old: dict[str, Any],
    stage: Stage,
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    out: dict[str, dict[str, list[dict[str, Any]]]] = {p: {"conda": [], "pip": []} for p in spec["platforms"]}
    moving = {package(u) for u in step.update}
    kept = {
        p: {n: v for n, v in part.get("packages", {}).items() if n not in moving and "*" not in step.update}
        for p, part in old.get("platforms", {}).items()
    }
    if any(part["conda"] for part in spec["requirements"].values()):
        if stage.offline and any(not url.startswith("file://") for url in here.values()):
            raise problem("locking needs its channels", why="offline: true", do="lock on a machine that may connect")
        request = {
            "channels": list(here.values()),
            "cache": str(cache(stage)),
            "platforms": {
                p: {
                    "specs": spec["requirements"][p]["conda"],
                    "virtual": virtual[p],
                    "locked": list(kept.get(p, {})),
                }
                for p in spec["platforms"]
            },
        }
        previous = known(step.name, stage) / f"{step.name}.conda-lock.yml"
        with contextlib.ExitStack() as stack:
            if previous.exists():
                request["lockfile"] = str(stack.enter_context(expanded(previous, stage)))
            if spec.get("solver") == "external":
                solved = external.solve(request)
            else:
                solved = conda.ask("solve", request, stage.check)
        for p, records in solved.items():
            out[p]["conda"] = records
    for p in spec["platforms"]:
        pip = spec["requirements"][p]["pip"]
        if not pip:
            continue
        of = {r["name"]: r for r in out[p]["conda"]}
        dists = {uv.normalized(n): r["version"] for n, r in of.items() if _is_python_package(r)}
        python = of["python"]["version"] if "python" in of else spec.get("python", "")
        if not python:
            raise problem("Python packages are asked for, and no python", do='add `python: "3.12"`')
        sdist = spec.get("allow_sdist", False)
        out[p]["pip"] = uv.resolve(
            pip,
            p,
            "3.11" if python == "host" else python,
            virtual[p],
            dists,
            preferred={n: v for n, v in kept.get(p, {}).items() if n not in of},
            sdist=list(sdist) if isinstance(sdist, (list, tuple)) else bool(sdist),
            cache=uv_cache(stage),
            offline=stage.offline,
            check=stage.check,
        )
    return out


def _is_python_package(record: dict[str, Any]) -> bool:
    return any(package(d) in ("python", "python-abi") for d in record["depends"]) and record["name"] not in (
        "pip",
        "python",
    )


def _summarize(
    step: LockEnv, spec: dict[str, Any], virtual: dict[str, Any], packages: dict[str, Any], target: Path
) -> dict[str, Any]:
    platforms: dict[str, Any] = {}
    for p, part in packages.items():
        everything = [*part["conda"], *part["pip"]]
        sizes = [x.get("size") for x in everything]
        at = "" if step.pins else "url"
        pins = sorted([x["name"], x["version"], x.get(at, ""), x["sha256"] or x.get("md5")] for x in everything)
        platforms[p] = {
            "digest": digest([*pins, ["python", spec.get("python", "")], ["virtual", *sorted(virtual[p].items())]]),
            "conda": len(part["conda"]),
            "pip": len(part["pip"]),
            "packages": {x["name"]: x["version"] for x in sorted(everything, key=lambda x: x["name"])},
        }  # fmt: skip
        if step.pins:
            platforms[p]["pins"] = {x["name"]: f"sha256:{x['sha256']} {_archive(x)}" for x in part["pip"]}
        if all(sizes):
            platforms[p]["download"] = sum(sizes)
    file = {} if step.pins else {"lockfile": target.name, "sha256": hashlib.sha256(target.read_bytes()).hexdigest()}
    return {
        **file,
        "inputs": inputs_digest(step.spec),
        "python": spec.get("python", ""),
        "virtual_packages": virtual,
        "platforms": platforms,
    }


def _archive(package: dict[str, Any]) -> str:
    """The file name of a package's archive. Pure."""
    return str(package["url"].rpartition("/")[2].partition("#")[0])


def _held(packages: dict[str, Any], pinned: dict[str, Any]) -> None:
    """No archive is another than the one of that name that was pinned; a problem otherwise. Pure."""
    for platform, part in packages.items():
        pins = pinned.get("platforms", {}).get(platform, {}).get("pins", {})
        for p in part["pip"]:
            known, _, archive = pins.get(p["name"], "").partition(" ")
            if archive == _archive(p) and known != f"sha256:{p['sha256']}":
                raise problem(
                    f"{archive} is not the file that was pinned",
                    why=f"{known} was pinned, the index has sha256:{p['sha256']}",
                    do="find out why it was replaced; to accept it, remove its pin and lock again",
                )


def parsed(name: str, folder: Path) -> dict[str, Any]:
    """An env's committed lock in `folder`, in conda-lock's shape; what is pinned has no `url`. Empty if none. Reads."""
    import yaml

    path = folder / f"{name}.conda-lock.yml"
    if path.exists():
        found: dict[str, Any] = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # nosec B506 # a safe loader
        return found
    platforms = _read(folder / f"{name}.yaml").get("platforms", {})
    if not any("pins" in part for part in platforms.values()):
        return {}
    packages = [
        {"name": n, "version": part["packages"][n], "manager": "pip", "platform": p, "dependencies": {}, "url": "",
         "hash": {"sha256": pin.partition(" ")[0].removeprefix("sha256:")}}
        for p, part in platforms.items() for n, pin in part["pins"].items()
    ]  # fmt: skip
    return {"version": 1, "metadata": {"channels": [], "platforms": list(platforms)}, "package": packages}


def _of_template(name: str) -> dict[str, Any]:
    """The lock that comes with a template: what was tried together is what a new env starts from."""
    home = shipped("recipes/env/lock") if name else None
    return _read(home / f"{name}.yaml") if home else {}


def moved(old: Facts, new: Facts) -> list[str]:
    """What a relock moves: `linux-64: numpy 1.26.4 → 2.0.1`. Pure."""
    out = []
    for platform, part in new["platforms"].items():
        before = old.get("platforms", {}).get(platform, {}).get("packages")
        if before is None:
            continue
        after = part["packages"]
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                out.append(f"{platform}: {name} {before.get(name, '–')} → {after.get(name, '–')}")
    return out


def summary(name: str, stage: Stage) -> dict[str, Any]:
    return _read(known(name, stage) / f"{name}.yaml")


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # nosec B506 # a safe loader
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _yaml(value: Any) -> str:
    """As `lab lock` writes every lock. Pure."""
    import yaml

    head = "# Written by `lab lock`. Commit it; change the declaration, not this.\n"
    return head + str(yaml.safe_dump(value, sort_keys=True, allow_unicode=True, width=120))


@contextlib.contextmanager
def expanded(path: Path, stage: Stage) -> Iterator[Path]:
    """The lock with this machine's places in it, for rattler."""
    text = path.read_text()
    for name, value in environ(stage).items():
        text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)
    text = archives.localized(stage.state, text)
    here = stage.scratch / f"{os.getpid()}-{os.urandom(3).hex()}.conda-lock.yml"
    here.write_text(text)
    try:
        yield here
    finally:
        here.unlink(missing_ok=True)


def ensure_channels(lockfile: Path, stage: Stage) -> None:
    """Every described channel that a lock names stands where the lock says."""
    text = lockfile.read_text()
    for source in _described(stage):
        name = f"{source.parent.name}-{digest(source.read_text())[:8]}"
        if f"$LAB_CHANNELS/{name}" in text:
            build(source.parent, stage.state / "cache" / "channels" / name)


def _described(stage: Stage) -> list[Path]:
    with_lab = shipped("recipes/channel")
    roots = [stage.root / "recipes" / "channel", *([with_lab] if with_lab else [])]
    return [f for root in dict.fromkeys(roots) for f in sorted(root.glob("*/channel.yaml"))]


def placed(error: Problems, name: str, stage: Stage) -> Problems:
    """The same problems, each at the line of the env's YAML that asks for a package its reason names."""
    path = f"conf/env/{name}.yaml"
    try:
        lines = (stage.root / path).read_text().splitlines()
    except OSError:
        return error

    def place(p: Problem) -> Problem:
        words = set(re.findall(r"[A-Za-z0-9_.-]+", f"{p.summary} {p.why}".lower()))
        for n, line in enumerate(lines, 1):
            bare = re.sub(r"^(conda|pip):", "", line.strip()).strip(" -[]\"'")
            if any(package(part.strip(" []\"'")) in words - _KEYS for part in bare.split(", ")):
                return replace(p, file=path, line=n)
        # What no line names, a key asks for: `python:` a package of conda's, `pip:` conda's own pip.
        asking = (n for n, line in enumerate(lines, 1) for key in ("python", "pip", "channels")
                  if key.removesuffix("s") in words and line.startswith(f"{key}:"))  # fmt: skip
        return replace(p, file=path, line=next(asking, 1))

    return Problems(*(place(p) for p in error.problems))
