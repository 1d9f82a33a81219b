"""Odd conf, overrides, locks, plans, ledgers, headers and answers of servers and tools: a problem in words, or nothing.

The same few cases each time; `python -m tests.faults.fuzz TARGET SECONDS SEED` goes on for as long as one likes.
"""

# ruff: noqa: E501

from __future__ import annotations

import pytest

from tests.faults import answers, fuzz

TARGETS = {
    "conf": (fuzz.conf, 8), "overrides": (fuzz.overrides, 8), "locks": (fuzz.locks, 3), "plans": (fuzz.plans, 3), "ledgers": (fuzz.ledgers, 5),
    "headers": (fuzz.headers, 60), "hub": (answers.hub, 5), "modelscope": (answers.modelscope, 5), "registry": (answers.registry, 5),
    "release": (answers.release, 5), "restic": (answers.restic, 8), "ansible": (answers.ansible, 300),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_odd_cases(target: str) -> None:
    """No traceback, no hang, nothing written or run outside the places that are declared."""
    case, most = TARGETS[target]
    finds, tried = fuzz.run(case, 120, 1, most)
    assert not finds, finds
    assert tried


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_many_odd_cases(target: str) -> None:
    """The same cases on every machine; `python -m tests.faults.fuzz TARGET SECONDS SEED` tries more."""
    finds, tried = fuzz.run(TARGETS[target][0], 20, 100_000, 25)
    print(f"{target}: {tried} cases")
    assert not finds, finds
