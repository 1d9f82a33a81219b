"""Each host says how far it is supported, in a verb and on a page made from the same files.

Proves S0-2.3-2: Apple silicon is the reference, Linux is tested, nothing else is said to be tuned.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.labs import REPO, TestLab


def test_every_host_is_listed_with_its_level(tmp_path: Path) -> None:
    """Outside a lab: those that come with Lab. The reference is Apple silicon, and CI's Linux is tested: no more."""
    told = json.loads(TestLab(tmp_path)("hosts", "--json").out)
    levels = {h["name"]: h["support"] for h in told}
    files = {p.stem: yaml.safe_load(p.read_text()) for p in (REPO / "conf/host").glob("*.yaml")}
    assert levels == {name: file.get("support", "works, not tuned") for name, file in files.items()}
    assert [h["platform"] for h in told if h["support"] == "reference"] == ["osx-arm64"]
    assert {n for n, level in levels.items() if level == "tested"} == {"linux_cpu"}
    lines = TestLab(tmp_path)("hosts").out.splitlines()
    assert lines[0].split()[:2] == ["mac_studio_512", "reference"]
    assert any(line.startswith("works, not tuned: ") for line in lines)


def test_a_host_of_the_lab_is_listed_and_a_level_that_is_none_is_told(tmp_path: Path) -> None:
    """A lab's own word wins over the one that comes with Lab."""
    lab = TestLab.make(tmp_path)
    lab.write("conf/host/box.yaml", "platform: linux-64\nmemory: 4GiB\n")
    lab.write("conf/host/m1.yaml", "platform: osx-arm64\nmemory: 16GiB\nsupport: tested\n")
    levels = {h["name"]: h["support"] for h in json.loads(lab("hosts", "--json").out)}
    assert (levels["box"], levels["m1"]) == ("works, not tuned", "tested")
    lab.write("conf/host/box.yaml", "platform: linux-64\nmemory: 4GiB\nsupport: perfect\n")
    told = lab("hosts")
    assert (told.code, "conf/host/box.yaml is no host" in told.err) == (1, True)


def test_the_page_is_made_from_the_same(tmp_path: Path) -> None:
    """`lab docs --check` sees a page that says more than the files."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/verbs.md").write_text("")
    assert TestLab(tmp_path)("docs").code == 0
    here = tmp_path / "docs/support_matrix.md"
    assert here.read_text() == (REPO / "docs/support_matrix.md").read_text()
    for host in json.loads(TestLab(tmp_path)("hosts", "--json").out):
        assert f"| {host['name']} | {host['support']} | {host['platform']} |" in here.read_text()
    here.write_text(here.read_text().replace("| h100_80 | works, not tuned |", "| h100_80 | tested |"))
    told = TestLab(tmp_path)("docs", "--check")
    assert (told.code, "docs/support_matrix.md is stale" in told.err) == (1, True)
