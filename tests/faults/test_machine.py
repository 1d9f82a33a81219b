"""Whatever is done to a lab of files in whatever order, its promises hold.

After an apply the plan is empty and the world is what is declared; rollback restores; destroy leaves nothing; the
ledger is always sound.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.machine import Machine

QUICK = settings(
    max_examples=6, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def test_a_few_histories() -> None:
    """The same few each time."""
    run_state_machine_as_test(Machine, settings=QUICK)


@pytest.mark.slow
def test_many_histories() -> None:
    """Longer ones, other ones each time."""
    run_state_machine_as_test(
        Machine, settings=settings(QUICK, max_examples=60, stateful_step_count=25, derandomize=False)
    )
