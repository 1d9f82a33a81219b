"""What Lab composes equals what `hydra.compose` makes of the same lab written with `kind@kind.name: name` entries."""

# ruff: noqa: E501

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab import kinds
from lab.core.problem import Problems
from lab.declare import composed

from .conftest import Make

HEAD = """\
defaults:
  - _self_
  - host: box
  - paths: local
  - profile: demo
lab: {name: t, id: 0123456789, store: "${paths.base}/store"}
vars: {rate: 1e-5, day: 2026-12-31, deep: {a: [1, {b: "${lab.name}"}], c: "${.a}"}}
"""
GROUPS = {
    "host/box.yaml": "name: box\nmemory: 8_000_000\n",
    "paths/local.yaml": "base: ${oc.env:LAB_TEST_BASE,/srv}\n",
    "paths/other.yaml": "base: /other\nextra: ${vars.rate}\n",
    "profile/demo.yaml": "# @package _global_\nresources: {tool: '*', file: '*', note: '*'}\nfile: {f000: {mode: '0600'}}\n",
    "profile/alt.yaml": "# @package _global_\ndefaults: [demo, {override /paths: other}, _self_]\nvars: {rate: 2}\n",
}
KINDS = ("file", "note", "tool")


@pytest.fixture(autouse=True)
def more_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kinds more, as other packages would add them."""
    monkeypatch.setattr(kinds, "shipped", lambda: ("file",))
    monkeypatch.setattr(kinds, "plugged", lambda: dict.fromkeys(("tool", "note"), "lab.kinds.file:File"))
    monkeypatch.setenv("LAB_TEST_SET", "from the environment")


def by_hydra(root: Path, overrides: Sequence[str]) -> Any:
    """The same lab through Hydra's public API; None where Hydra refuses."""
    copy = root.with_name("hydra")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(root / "conf", copy)
    files = sorted(p.relative_to(copy) for k in KINDS for p in (copy / k).glob("[!_]*.yaml"))
    entries = "".join(f"  - {p.parent}@{p.parent}.{p.stem}: {p.stem}\n" for p in files)
    text = (copy / "lab.yaml").read_text()
    (copy / "lab.yaml").write_text(text.replace("defaults:\n", "defaults:\n" + entries, 1))
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(copy), version_base="1.3"):
        try:
            config = hydra.compose("lab", list(overrides))
            return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError, AssertionError):
            return None


def by_lab(root: Path, overrides: Sequence[str]) -> Any:
    """The same through Lab; None where it finds problems."""
    try:
        return composed(root, overrides)
    except Problems:
        return None


def same(left: Any, right: Any) -> bool:
    """Equal, types and not-a-numbers included."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(v, right[k]) for k, v in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and (left == right or (left != left and right != right))


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_a_lab_of_several_hundred_files(make: Make, count: int) -> None:
    """Overrides, interpolations, groups, packages, defaults lists and deletions give what Hydra gives."""
    rng = random.Random(7)
    files: dict[str, str] = {"lab.yaml": HEAD, **GROUPS}
    for i in range(count):
        kind = KINDS[i % 3]
        other = f"{KINDS[(i + 1) % 3]}.{KINDS[(i + 1) % 3][0]}{(i + 1) % count:03}"
        body: dict[str, Any] = {
            "path": f"${{lab.store}}/{i}" if i % 4 else "${oc.env:LAB_TEST_SET}/x",
            "content": rng.choice(["plain", "${vars.rate}", "a ${lab.name} and ${paths.base}", "${vars.deep.a}"]),
            "mode": rng.choice(["0644", 644, 1e-5, None, True, "no", "2026-12-31"]),
            "values": {"one": 1, "nested": {"list": [1, [2, {"x": "${......path}"}]], "near": "${..one}"}},
            "lr": rng.choice(["1e-5", "1_000", "0o17", "1:30", "~", ".5", "nan"]),
        }
        if i % 7 == 0 and i < count - 3:
            body["from"] = f"${{{other}.values.one}}"
        text = yaml.safe_dump(body, sort_keys=False)
        if i % 50 == 10:
            text = "defaults: [_base, _self_]\n" + text
        if i % 50 == 20:
            text = "# @package elsewhere\n" + text
        files[f"{kind}/{kind[0]}{i:03}.yaml"] = text + f"raw: {body['lr']}\n"
    for kind in KINDS:
        files[f"{kind}/_base.yaml"] = "inherited: {deep: [1, 2], text: '${lab.name}'}\nmode: base\n"
    root = make(files)
    plain = by_hydra(root, [])
    assert plain is not None
    assert len(plain["file"]) == len(plain["tool"]) == count // 3
    assert same(by_lab(root, []), plain)
    overrides = [
        "profile=alt",
        "file.f000.mode='0755'",
        "+file.f003.fresh={a:1,b:[x,'${lab.name}'],c:{d:null}}",
        "++note.n001.values.nested={list:[9],more:1e-3}",
        "~tool.t002",
        "~file.f006.mode",
        "~note.n004.values.nested.list",
        "note.n007.values.one=int('7')",
        "+tool.extra={path:/x,values:{k:'${tool.t005.values.one}'}}",
        "file.f009.content='${vars.deep.c}'",
        "vars.rate=0.5",
        "+vars.more=[a,b]",
        "lab.name='other name'",
        "tool.t011.values={one:2}",
    ]
    expected = by_hydra(root, overrides)
    assert expected is not None
    assert same(by_lab(root, overrides), expected)


KEYS = st.sampled_from(["a", "b", "c", "path"])
SCALARS = st.one_of(
    st.sampled_from(["${lab.name}", "x ${file.one.a} y", "${oc.env:LAB_TEST_SET}", "${oc.env:NOPE_,d}", "${..a}", "text",
                     "${file.two}", "${lab}", "\\${x}", "${oc.decode:'[1, 2]'}", "${vars.${lab.name}}", "1e-5", "???"]),
    st.integers(-5, 5), st.booleans(), st.none(), st.floats(-2, 2).map(lambda x: round(x, 3)),
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda v: st.lists(v, max_size=2) | st.dictionaries(KEYS, v, max_size=3), max_leaves=5)
BLOCKS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)
TARGETS = st.sampled_from(["one", "two", "one.a", "two.b", "one.a.b", "two.c.a", "one.zzz", "new", "new.a", "one.b.0"])
WRITTEN = st.sampled_from(
    ["1", "text", "[1,x]", "{a:1}", "{zz:{b:2}}", "null", "'${lab.name}'", "1e-3", "true", "''", "0x10"]
)
OVERRIDES = st.lists(
    st.builds(
        lambda sign, target, value: f"~file.{target}" if sign == "~" else f"{sign}file.{target}={value}",
        st.sampled_from(["", "", "+", "++", "~"]), TARGETS, WRITTEN,
    ),
    max_size=3,
)  # fmt: skip


@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.generate],
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(one=BLOCKS, two=BLOCKS, overrides=OVERRIDES)
def test_small_labs_of_any_shape(
    make: Make, tmp_path: Path, one: Mapping[str, Any], two: Mapping[str, Any], overrides: list[str]
) -> None:
    """For any blocks and overrides, Lab and Hydra agree, on the result and on whether there is one.

    Two differences are meant: a field that the kind has may be set without `+`, as in a structured config, and a
    resource is always a mapping.
    """
    shutil.rmtree(tmp_path / "lab", ignore_errors=True)
    root = make({
        "lab.yaml": "defaults:\n  - _self_\n  - host: box\nlab: {name: t, id: 0123456789}\nvars: {t: 5}\n",
        "file/one.yaml": yaml.safe_dump(dict(one)),
        "file/two.yaml": yaml.safe_dump(dict(two)),
    })  # fmt: skip
    expected, found = by_hydra(root, overrides), by_lab(root, overrides)
    if expected is not None and not all(isinstance(b, dict) for b in expected["file"].values()):
        assert found is None
        return
    assert (found is None) == (expected is None), (found, expected)
    assert same(found, expected)
