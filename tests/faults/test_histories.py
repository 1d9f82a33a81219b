"""Whatever is done to a lab of several kinds in whatever order, its promises hold.

LAB_HISTORIES=heavy python -m tests.faults.test_histories 600     # ten minutes of them, quantizations among them
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.histories import Histories

QUICK = settings(
    max_examples=4, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.slow
def test_histories_of_several_kinds() -> None:
    """Some each time the same, some other ones each time."""
    run_state_machine_as_test(Histories, settings=QUICK)
    run_state_machine_as_test(Histories, settings=settings(QUICK, max_examples=8, derandomize=False))


@pytest.fixture
def history() -> Iterator[Histories]:
    """One that is told step by step."""
    made = Histories()
    yield made
    made.teardown()


def test_harmed_rows_are_repaired_and_not_taken_as_what_was_made(history: Histories) -> None:
    """The blob had its name and other bytes: the apply had recorded those."""
    history.declare_rows(name="a", n=1)
    history.apply()
    blob = next((history.lab.root / "store/datasets/a/data").glob("*.jsonl")).resolve()
    blob.chmod(0o644)
    blob.write_text(blob.read_text().replace("r", "R"))
    history.tampered = True
    history.apply()


def test_a_quantization_and_its_model_are_dropped_together(history: Histories) -> None:
    """What refers to what is declared no more either is understood from the ledger, and removed."""
    history.declare_quantization(n=0, kind="Q8_0")
    history.apply()
    for address in ("quantization.w", "model.w"):
        del history.conf[address]
        history._write(address)
    assert "not known" not in history.lab("plan").out
    history.apply()


def test_what_was_begun_and_has_no_view_yet_is_absent(history: Histories) -> None:
    """A dataset whose vault a killed apply had only begun is destroyed: its store is none that went away."""
    history.declare_rows(name="a", n=1)
    history.declare_file(name="b", path="p", text="one")
    history.apply()
    history.declare_rows(name="b", n=1)
    made = history.lab.root / "store/datasets/b"
    at = 1
    while not made.exists():
        history.kill(at=at)
        at += 1
    (made / ".lab.json").unlink(missing_ok=True)
    del history.conf["dataset.b"]
    history._write("dataset.b")
    history.apply()


def test_destroy_takes_what_another_profile_has_too_and_leaves_what_only_that_has(history: Histories) -> None:
    """It had refused all of it."""
    history.declare_file(name="a", path="p", text="one")
    history.declare_file(name="b", path="q", text="one")
    history.small_profile()
    history.apply()
    history.destroy()
    history.lab.write("conf/profile/all.yaml", "# @package _global_\nresources: {file: 'b*'}\n")
    history.small_profile()
    assert history.lab("apply", "--yes").code == 0
    assert history.lab("destroy", "--all", "--yes").code == 0
    assert history.world().keys() == {"out/p"}
    assert history.lab("destroy", "file.a", "--yes").code == 0
    assert history.world() == {}


def main(seconds: float) -> int:
    """Histories until the time is over; how many did not hold, each told with its steps."""
    until, count, lost = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        some = settings(QUICK, max_examples=5, stateful_step_count=30, derandomize=False, phases=[Phase.generate])
        try:
            run_state_machine_as_test(Histories, settings=some)
        except FlakyStrategyDefinition:
            continue  # threads took other turns when a beginning was tried again
        except Exception as e:
            lost += 1
            where = traceback.extract_tb(e.__traceback__)[-1]
            told = (f"{type(e).__name__} in {where.name}, line {where.lineno}: {e}", *getattr(e, "__notes__", ()))
            print(*told, sep="\n", flush=True)
        count += 5
        print(f"{count} histories, {lost} lost, {until - time.monotonic():.0f} s left", flush=True)
    return lost


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
