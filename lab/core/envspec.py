"""Envspec: what an environment asks for, as one plain mapping that is compared, locked and shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lab.core.facts import Facts, digest

PLATFORMS = ("osx-arm64", "linux-64")
KNOWN_PLATFORMS = (*PLATFORMS, "linux-aarch64", "osx-64", "win-64")
_NAME = re.compile(r"^\s*(?:[^\s:]+::)?([A-Za-z0-9_][A-Za-z0-9_.-]*)")
_CONDITION = re.compile(r"\s*(===|==|!=|>=|<=|~=|=|>|<)?\s*([0-9][^,\s|]*)\s*")


def package(text: str) -> str:
    """The normalized name in a requirement: `Foo_Bar[x] >=1` → `foo-bar`; empty where there is none. Pure."""
    found = _NAME.match(text)
    return re.sub(r"[-_.]+", "-", found[1]).lower() if found else ""


def merged(base: Iterable[str], over: Iterable[str]) -> list[str]:
    """`base` followed by `over`, where a requirement of `over` replaces those of the same package in `base`. Pure."""
    over = list(over)
    names = {package(o) for o in over}
    return [b for b in base if package(b) not in names] + over


def combine(base: Facts, over: Facts) -> dict[str, Any]:
    """The spec `base` with `over` laid on it: lists merge by package, mappings by key, values replace. Pure."""
    out = dict(base)
    for key, value in over.items():
        if key in ("conda", "pip"):
            out[key] = merged(out.get(key, ()), value)
        elif key == "channels":
            out[key] = list(dict.fromkeys([*value, *out.get(key, ())]))
        elif isinstance(value, Mapping):
            before = out.get(key, {})
            out[key] = {
                **before,
                **{k: combine(before.get(k, {}), v) if isinstance(v, Mapping) else v for k, v in value.items()},
            }
        else:
            out[key] = value
    return out


def inputs_digest(spec: Facts) -> str:
    """What a lock answers: a lock with another one is stale. Pure."""
    return digest({k: v for k, v in spec.items() if k in LOCKED})


LOCKED = ("channels", "conda", "pip", "python", "platforms", "on", "virtual_packages", "allow_sdist")
"""The keys of a spec that decide what is locked."""


def requirements(spec: Facts, platform: str) -> tuple[list[str], list[str]]:
    """The conda and pip requirements of a spec on one platform. Pure."""
    part = spec.get("on", {}).get(platform, {})
    conda = merged(spec.get("conda", ()), part.get("conda", ()))
    pip = merged(spec.get("pip", ()), part.get("pip", ()))
    names = {package(c) for c in conda}
    if spec.get("channels"):
        if (python := spec.get("python", "")) and "python" not in names:
            conda = [f"python {python}.*" if re.fullmatch(r"[\d.]+", python) else f"python {python}", *conda]
        if pip and "pip" not in names:
            conda = [*conda, "pip"]
    return conda, pip


def moves(spec: Facts, platform: str, packages: Mapping[str, str]) -> list[str]:
    """What a spec asks of packages that their locked versions do not answer: `numpy 1.26.4 → >=2`. Pure.

    Only what is certain without a solver; simple conditions (`>=1,<2`, `==1.2.*`) are judged, others are passed over.
    """
    out = []
    conda, pip = requirements(spec, platform)
    for text in [*conda, *pip]:
        name = package(text)
        condition = re.sub(r"^\s*(?:[^\s:]+::)?[A-Za-z0-9_.-]+(\[[^\]]*\])?", "", text.partition(";")[0]).strip()
        locked = packages.get(name)
        if locked is None:
            out.append(f"{name} is new{f' ({condition})' if condition else ''}")
        elif not admits(condition, locked):
            out.append(f"{name} {locked} → {condition}")
    return out


def admits(condition: str, version: str) -> bool:
    """Whether a version answers a condition such as `>=1,<2`; what cannot be judged counts as answered. Pure."""
    condition = condition.partition(" ")[0] if condition and condition[0].isdigit() else condition
    for part in filter(None, (p.strip() for p in condition.split(","))):
        found = _CONDITION.fullmatch(part)
        if found and not _judge(found[1] or "=", found[2], version):
            return False
    return True


def _judge(sign: str, asked: str, version: str) -> bool:
    if asked.endswith("*") or sign == "=":
        stem = asked.rstrip("*").rstrip(".")
        same = version == stem or version.startswith(stem + ".")
        return not same if sign == "!=" else same
    have, want = _key(version), _key(asked)
    width = max(len(have), len(want))
    have, want = have + [0] * (width - len(have)), want + [0] * (width - len(want))
    if sign == "~=":
        return have >= want and have[: len(_key(asked)) - 1] == want[: len(_key(asked)) - 1]
    return {
        "==": have == want, "===": have == want, "!=": have != want,
        ">=": have >= want, "<=": have <= want, ">": have > want, "<": have < want,
    }[sign]  # fmt: skip


def _key(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version.partition("+")[0])]
