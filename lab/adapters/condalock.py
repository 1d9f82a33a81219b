"""conda-lock's own package: specs, content hashes, and the lock file in format v1.

It runs in this process: what it needs of pydantic and YAML is loaded here anyway, and it is loaded while rattler solves
in another.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import types
from pathlib import Path
from typing import Any

import yaml

SELECTORS = {"linux-64": "linux64", "linux-aarch64": "aarch64", "osx-arm64": "arm64", "osx-64": "osx and not arm64",
             "win-64": "win64"}  # fmt: skip


def source(spec: dict[str, Any]) -> str:
    """The spec as an `environment.yml` that conda-lock reads; what one platform asks for carries a selector. Pure."""
    channels = spec["channels"] or ["nodefaults"]
    lines = ["channels:", *(f"  - {c}" for c in channels), "dependencies:"]
    lines += [f"  - {text}{mark}" for text, mark in _marked(spec, "conda")]
    pip = [f"      - {text}{mark}" for text, mark in _marked(spec, "pip")]
    if pip:
        lines += ["  - pip:", *pip]
    if len(lines) == len(channels) + 2:
        lines[-1] = "dependencies: []"
    return "\n".join([*lines, "platforms:", *(f"  - {p}" for p in spec["platforms"])]) + "\n"


def _marked(spec: dict[str, Any], part: str) -> list[tuple[str, str]]:
    """Each requirement, with the selector of its platform where it is not of all."""
    of = {p: spec["requirements"][p][part] for p in spec["platforms"]}
    everywhere = [t for t in of[spec["platforms"][0]] if all(t in ts for ts in of.values())]
    out = [(t, "") for t in everywhere]
    for platform, texts in of.items():
        out += [(t, f"  # [{SELECTORS[platform]}]") for t in texts if t not in everywhere]
    return out


def virtual_text(virtual: dict[str, dict[str, str]]) -> str:
    """The virtual packages as a file for `conda-lock --virtual-package-spec`. Pure."""
    lines = ["subdirs:"]
    for platform, packages in virtual.items():
        lines += [f"  {platform}:", "    packages:"]
        lines += [f'      {name}: "{version}"' for name, version in packages.items()]
    return "\n".join(lines) + "\n"


_loading = threading.Lock()


def load() -> None:
    """conda-lock's modules that we use are imported, and nothing else of it: a tenth of the time.

    Its package imports its command line and Poetry's solver, its reader of specs one for `meta.yaml` (jinja2) and one
    for markers (Poetry again), its names of packages a downloader (requests, filelock), and conda's requirements its
    configuration (a second YAML) and exceptions (requests). Only modules of conda-lock's own are stood in for. It reads
    and writes YAML by libyaml, and leaves no mark in the environment, which every process that Lab starts inherits.
    """
    with _loading:
        own = os.environ.get(MARK)
        found = importlib.util.find_spec("conda_lock")
        if "conda_lock" not in sys.modules and found is not None and found.submodule_search_locations:
            bare = _absent("conda_lock")
            bare.__path__ = list(found.submodule_search_locations)
            bare.__spec__ = found
            _absent("conda_lock.src_parser.markers", evaluate_marker=_evaluate_marker)
            _absent("conda_lock.src_parser.meta_yaml", parse_meta_yaml_file=_never)
            _absent("conda_lock.lookup_cache", cached_download_file=_never)
            _absent(f"{_CONDA}.exceptions", __getattr__=_fault)
            _absent(f"{_CONDA}.base.context", context=_Context(), Context=object)
        import conda_lock.content_hash
        import conda_lock.interfaces.vendored_conda
        import conda_lock.lockfile
        import conda_lock.src_parser
        import conda_lock.virtual_package

        conda_lock.lockfile.yaml = conda_lock.src_parser.environment_yaml.yaml = _YAML
        if own is None:
            os.environ.pop(MARK, None)


MARK = "CONDA_ROOT"
"""A variable that conda's package sets when it is imported."""
_YAML = types.SimpleNamespace(
    safe_load=functools.partial(yaml.load, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)),
    dump=functools.partial(yaml.dump, Dumper=getattr(yaml, "CDumper", yaml.Dumper)),
)

_CONDA = "conda_lock._vendor.conda"


def _absent(name: str, **members: Any) -> types.ModuleType:
    """A module that is there by name, with these members only."""
    sys.modules[name] = module = types.ModuleType(name)
    vars(module).update(members)
    return module


def _never(*_: Any, **__: Any) -> Any:
    raise RuntimeError("Lab hands conda-lock an environment.yml and a mapping on disk, never a meta.yaml or an address")


def _fault(name: str) -> type[Exception]:
    """The exception of that name, once and for all. Pure."""
    if name.startswith("__"):
        raise AttributeError(name)
    made = type(name, (ValueError,), {"__init__": lambda self, *said, **_: ValueError.__init__(self, *said)})
    setattr(sys.modules[f"{_CONDA}.exceptions"], name, made)
    return made


class _Context:
    """conda's configuration, loaded when it is first asked: only a requirement that names its channel does."""

    def __getattr__(self, name: str) -> Any:
        if name == "register_reset_callaback":
            return lambda callback: None
        late = sys.modules.pop(f"{_CONDA}.base.context")
        try:
            real = importlib.import_module(f"{_CONDA}.base.context").context
        finally:
            sys.modules[f"{_CONDA}.base.context"] = late
        vars(self)[name] = found = getattr(real, name)
        return found


def _evaluate_marker(marker: Any, platform: str) -> bool:
    """As conda-lock judges a marker; what judges it is loaded only where there is one."""
    if marker is None:
        return True
    late = sys.modules.pop("conda_lock.src_parser.markers")
    try:
        return bool(importlib.import_module("conda_lock.src_parser.markers").evaluate_marker(marker, platform))
    finally:
        sys.modules["conda_lock.src_parser.markers"] = late


def write(request: dict[str, Any]) -> dict[str, Any]:
    """Three files are in place: the lock in format v1, and the source and virtual packages it answers."""
    load()
    from conda_lock.content_hash import compute_content_hashes
    from conda_lock.interfaces.vendored_conda import MatchSpec
    from conda_lock.lockfile import apply_categories, write_conda_lock_file
    from conda_lock.lockfile.v2prelim.models import HashModel, LockedDependency, Lockfile, LockMeta
    from conda_lock.src_parser import make_lock_spec
    from conda_lock.virtual_package import virtual_package_repo_from_specification

    target = Path(request["target"])
    text, virtual = source(request["spec"]), virtual_text(request["virtual"])
    with tempfile.TemporaryDirectory() as folder:
        named, offered, mapping = Path(folder, "environment.yml"), Path(folder, "virtual.yml"), Path(folder, "map.json")
        named.write_text(text)
        offered.write_text(virtual)
        # conda-lock would fetch its table of PyPI names; conda's own Python packages are told to uv as they are.
        mapping.write_text("{}")
        spec = make_lock_spec(src_files=[named], mapping_url=str(mapping))
        repository = virtual_package_repo_from_specification(offered)
        packages: list[Any] = []
        for platform in request["spec"]["platforms"]:
            part = request["packages"][platform]
            planned: dict[str, Any] = {}
            for p in part["conda"]:
                asked: dict[str, list[Any]] = {}
                for depends in p["depends"]:
                    match = MatchSpec(depends)
                    asked.setdefault(match.name, []).append(match)
                one = {n: ms[0] if len(ms) == 1 else MatchSpec.merge(ms)[0] for n, ms in asked.items()}
                planned[p["name"]] = LockedDependency(
                    name=p["name"],
                    version=p["version"],
                    manager="conda",
                    platform=platform,
                    dependencies={n: m.version.spec_str if m.version is not None else "" for n, m in one.items()},
                    url=p["url"],
                    hash=HashModel(md5=p["md5"], sha256=p["sha256"]),
                )
            # conda-lock asks for conda's pip wherever there are Python packages; a host interpreter has none.
            asked_for = {d.name: d for d in spec.dependencies[platform] if d.manager == "conda"}
            requested = {n: d for n, d in asked_for.items() if n in planned}
            apply_categories(requested=requested, planned=planned, mapping_url=str(mapping))
            for locked in planned.values():
                locked.categories = locked.categories or {"main"}
            packages += planned.values()
            packages += [
                LockedDependency(
                    name=p["name"],
                    version=p["version"],
                    manager="pip",
                    platform=platform,
                    dependencies=p["depends"],
                    url=p["url"],
                    hash=HashModel(sha256=p["sha256"]),
                    categories={"main"},
                )
                for p in part["pip"]
            ]
        source_path = target.with_name(f"{request['name']}.environment.yml")
        lock = Lockfile(
            package=packages,
            metadata=LockMeta(
                content_hash=compute_content_hashes(spec, repository),
                channels=list(spec.channels),
                platforms=list(spec.platforms),
                sources=[source_path.name],
                custom_metadata={"lab": request["note"]},
            ),
        )
        staged = Path(folder, "conda-lock.yml")
        write_conda_lock_file(lock, staged, metadata_choices=set())
        body = staged.read_text()
        shutil.rmtree(repository.base_path, ignore_errors=True)  # conda-lock waits with that until this process ends
    for path, content in (
        (source_path, text),
        (target.with_name(f"{request['name']}.virtual-packages.yml"), virtual),
        (target, body),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.lab-tmp")
        temporary.write_text(content)
        os.replace(temporary, path)
    return {"lockfile": target.name}
