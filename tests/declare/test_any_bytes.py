"""Whatever bytes stand in a conf file, loading ends soon, with declarations or with problems, never otherwise."""

# ruff: noqa: E501

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lab.core.problem import Problem, Problems
from lab.declare import load
from lab.declare.read import read

from .conftest import Make

PIECES = st.sampled_from([
    "path: ", "content: ", "/a", "\n", "  ", "- ", "[", "]", "{", "}", ", ", ": ", "&a ", "*a", "<<: ", "!!int ", "!!binary ",
    "? ", "|", ">", "'", '"', "#", "---", "...", "%YAML 1.1\n", "${", "}", "lab.store", "oc.env:", "???", "\t", "1e-5", "0x", "0b_",
    "1:99", "~", "defaults: ", "# @package _global_\n", "needs: ", "file.a", "null", "values:", "\\", "\x85", "\ufeff", "é",
])  # fmt: skip
TEXTS = st.lists(PIECES, max_size=30).map(lambda p: "".join(p).encode())
BYTES = st.binary(max_size=60) | TEXTS


def told(root: Path, *overrides: str) -> tuple[Problem, ...]:
    """The problems of a lab, if there are any; any other exception passes."""
    try:
        load(root, overrides)
    except Problems as e:
        return e.problems or (Problem(""),)
    return ()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=BYTES, where=st.sampled_from(["file/a.yaml", "file/a.yaml", "lab.yaml", "host/box.yaml", "profile/p.yaml"]))
@example(data=b"defaults: [_self_, {host: box}, {nope: x}]\nlab: {name: t, id: 0123456789}\n", where="lab.yaml")
@example(data=b"defaults: 5\nlab: {name: t, id: 0123456789}\n", where="lab.yaml")
@example(data=b"defaults: [[x]]\nlab: {name: t, id: 0123456789}\n", where="lab.yaml")
@example(data=b"hydra: {searchpath: 5}\nlab: {name: t, id: 0123456789}\n", where="lab.yaml")
@example(data=b"1: {a: 2}\nlab: 3\nresources: 5\n", where="lab.yaml")
@example(data=b"# @package a b c\nlab: {name: t, id: 0123456789}\n", where="lab.yaml")
@example(data=b"# @package\n", where="profile/p.yaml")
@example(data=b"defaults: [a]\n", where="file/a.yaml")
@example(data=b"defaults: [{1: 2}]\npath: /a\n", where="file/a.yaml")
@example(data=b"lab: {name: t, id: 0123456789}\nfile: {x: 5, y: [1], 3: {path: /a, content: b}}\n", where="lab.yaml")
@example(data=b"lab: {name: t, id: 0123456789}\nfile: [1]\n", where="lab.yaml")
@example(data=b"lab: {name: t, id: 0123456789}\nresources: {file: {a: b}}\n", where="lab.yaml")
@example(data=b"lab: {name: t, id: 0123456789}\nresources: {file: 5}\n", where="lab.yaml")
@example(data=b"lab: {name: t, id: 0123456789}\nmoved: [{from: x}]\n", where="lab.yaml")
@example(data=b"name: ${..lab}\n", where="host/box.yaml")
def test_any_bytes_give_declarations_or_problems(make: Make, data: bytes, where: str) -> None:
    """No exception but Problems, each with a summary and a file; and it does not take long."""
    root = make({"file/ok.yaml": "path: /ok\ncontent: x\n"})
    for stray in ("file/a.yaml", "profile/p.yaml"):
        (root / "conf" / stray).unlink(missing_ok=True)
    make({where: data})
    start = time.process_time()
    assert all(p.summary and p.file for p in told(root))
    assert time.process_time() - start < 5


WORDS = st.lists(
    st.sampled_from(["file", "ok", "path", "content", "lab", "profile", "host", ".", "=", "+", "++", "~", "@", "/", "[", "]", "{", "}",
                     ",", "'", '"', "${", "x", "1", " ", ":", "range(1,2)", "null", "resources", "\\", "hydra", "defaults"]),
    max_size=8,
).map("".join)  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=WORDS)
@example(text="hydra.searchpath=[x]")
@example(text="~lab")
@example(text="~lab.name")
@example(text="lab=5")
@example(text="resources=5")
@example(text="host=[a]")
@example(text="~host")
@example(text="+file=5")
@example(text="file=ok")
@example(text="file.ok.path=[1,2]")
@example(text="")
def test_any_override_gives_declarations_or_problems(make: Make, text: str) -> None:
    """An override is applied or told as a problem."""
    root = make({"file/ok.yaml": "path: /ok\ncontent: x\n"})
    assert all(p.summary and p.file for p in told(root, text))


@settings(max_examples=300, deadline=None)
@given(data=TEXTS)
@example(
    data=b"a: 1e-5\nb: 2026-12-31\nc: 0o17\nd: 1_000\ne: 1:30\nf: .5\ng: ~\nh: yes\ni: .inf\nj: 0x1F\nk: '5'\nl: 1.\nm: 1e5\n"
)
@example(data=b"b: &b {x: 1, y: 2}\na: {<<: *b, x: 3}\nc: {<<: [{z: 1}, *b]}\n")
@example(data=b"1: a\n2.5: b\ntrue: c\n")
def test_yaml_is_read_as_omegaconf_reads_it(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """What both read as a mapping is the same. (libyaml takes a few texts that PyYAML refuses, such as a last tab.)"""
    path: Path = tmp_path_factory.getbasetemp() / "one.yaml"
    path.write_bytes(data)
    try:
        expected = OmegaConf.to_container(OmegaConf.load(path))
    except Exception:
        expected = None
    try:
        found = read(data, "one.yaml").value
    except Problems:
        found = None
    if isinstance(expected, dict) and isinstance(found, dict):
        assert repr(found) == repr(expected)
