"""Options and fixtures every test may use."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import tempfile

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--accept` rewrites what scenario files expect; `--keep-tried` notes what docs/integrations.md says."""
    parser.addoption("--accept", action="store_true", help="rewrite the expected part of scenario files")
    parser.addoption("--keep-tried", action="store_true", help="note which integrations passed all their tests")


def pytest_configure(config: pytest.Config) -> None:
    """The suite stands alone: no ignored SIGINT handed on from the background, and no store that an owner's lab uses.

    A store stamped by another checkout of the reference lab would rightly be a problem here ("the ledger is missing").
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["LAB_STORE"] = tempfile.mkdtemp(prefix="lab-store-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """What the suite stored goes with it."""
    shutil.rmtree(os.environ["LAB_STORE"], ignore_errors=True)


LONGEST = (
    "faults/test_fuzz", "faults/test_killed", "faults/test_errors", "sweeps/test_executors", "faults/test_heavy",
    "host/test_backup_hard", "host/test_broker", "host/test_killed", "host/test_backup_begun", "engines/test_lifecycle",
    "host/test_host_remote", "host/test_guests", "envs/test_frameworks", "host/test_rebuild", "faults/test_machine",
    "host/test_access", "experiments/test_training", "engines/test_ladder", "faults/test_inner", "sweeps/test_resume",
    "host/test_offline",
)  # fmt: skip
"""Files that take a minute or more, about the longest first: begun last, one leaves the other worker without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, the others as they were."""
    ranks = {f"{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(f"{item.path.parent.name}/{item.path.name}", len(ranks)))


OUTCOMES: dict[str, set[str]] = {}
"""`FILE::FUNCTION` → how it went, over all its parameters."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Every outcome but the passing of a set-up or tear-down is noted."""
    if report.when == "call" or report.outcome != "passed":
        file, *_, name = report.nodeid.partition("[")[0].split("::")
        OUTCOMES.setdefault(f"{file}::{name}", set()).add(report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With `--keep-tried`, each integration of which all tests passed is noted with the day and its version."""
    if not session.config.getoption("--keep-tried") or hasattr(session.config, "workerinput"):
        return
    from lab.adapters.integrations import INTEGRATIONS, KEPT
    from lab.app.integrations import version

    kept = json.loads(KEPT.read_text())
    for one in INTEGRATIONS:
        if not one.stand_in and all(OUTCOMES.get(test) == {"passed"} for test in one.tests):
            day = str(datetime.datetime.now(tz=datetime.UTC).date())
            kept[one.name] = {"day": day, "version": version(one) or "a version of its own env"}
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
