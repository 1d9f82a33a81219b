"""An env in two stages: what one solves and installs leaves the other as it is, until its packages are promoted.

Proves S4-2.2.11-7 with tests/stages.
"""

from __future__ import annotations

from pathlib import Path

from tests.envs.test_pins import ENV, index, offer  # noqa: F401
from tests.labs import TestLab
from tests.stages.conftest import tree

HEAD = "# @package _global_\n"


def installed(lab: TestLab, stage: str) -> list[str]:
    """The versions that stand in a stage's prefix."""
    found = (lab.root / f"state/stage/{stage}/envs/one/lib").glob("*/site-packages/pinned_one-*.dist-info")
    return [p.name.removeprefix("pinned_one-").removesuffix(".dist-info") for p in found]


def test_a_stage_solves_for_itself_and_its_packages_are_promoted(tmp_path: Path, index: Path) -> None:  # noqa: F811
    """Production keeps its lock and prefix; promoted, it gets what was tried, although something newer is out."""
    offer(index, "1.0")
    lab = TestLab.make(tmp_path / "a", {"env/one": ENV, "stage/test": HEAD, "stage/prod": HEAD})
    assert lab("lock").code == 0
    shared = tree(lab.root / "conf/lock")
    for stage in ("test", "prod"):
        assert lab("apply", "--yes", f"stage={stage}").code == 0
        assert installed(lab, stage) == ["1.0"]
    assert tree(lab.root / "conf/lock") == shared
    offer(index, "2.0")
    lab.write("conf/stage/test.yaml", f'{HEAD}env: {{one: {{pip: ["pinned-one>=2"]}}}}\n')
    assert lab("lock", "stage=test").code == 0
    assert lab("apply", "--yes", "stage=test").code == 0
    assert (installed(lab, "test"), installed(lab, "prod")) == (["2.0"], ["1.0"])
    assert lab("plan", "stage=prod").out.startswith("No changes.")
    assert lab("plan", "stage=test").out.startswith("No changes.")
    offer(index, "3.0")
    done = lab("promote", "test", "prod")
    assert done.code == 0, done.err
    assert (lab.root / "conf/stage/prod.yaml").read_text() == f"{HEAD}env:\n  one:\n    pip: [pinned-one>=2]\n"
    assert lab("apply", "--yes", "stage=prod").code == 0
    assert installed(lab, "prod") == ["2.0"]
    locks = tree(lab.root / "conf/lock")
    assert locks.pop("stage/prod/env/one.yaml") == locks.pop("stage/test/env/one.yaml")
    assert locks == shared
