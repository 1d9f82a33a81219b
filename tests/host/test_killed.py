"""Guests and access killed at their effects: no half account, no key of one who went, and the owner always gets in.

Real accounts, access lists and a real sshd in a throw-away copy of this machine; with LAB_FAULTS=all every boundary.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host import sandbox

MOST = 0 if os.environ.get("LAB_FAULTS") == "all" else 5


@pytest.mark.root
@pytest.mark.slow
def test_killed_anywhere_the_next_apply_completes_and_nobody_is_locked_out(tmp_path: Path) -> None:
    if why := sandbox.possible():
        pytest.skip(why)
    report = sandbox.inside(Path(__file__).with_name("inside_killed.py"), tmp_path, str(MOST), timeout=3000)
    print(report["deeds"], report["reverted"], report["applies"])
    assert not report["lost"], "\n".join(report["lost"])
    assert set(report["deeds"]) == {"guest made", "guest gone", "access made", "access gone"}
    for name, found in report["deeds"].items():
        assert found["survived"] == found["killed"] >= 3, name
    assert report["reverted"] >= 3
    assert report["applies"] >= 2
    assert report["left"] == [False, []]
