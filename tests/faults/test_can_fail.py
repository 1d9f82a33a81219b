"""The tests can fail: with any one guard taken away a campaign reports a loss, or a named test fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import broken
from tests.faults.campaign import Campaign, Deed
from tests.faults.labs import deeds
from tests.faults.zygote import Zygote
from tests.labs import REPO

CAMPAIGNS = [
    ("no_intent", "create", "stepped", "kill", True, "orphaned"),
    ("no_record", "create", "sqlite UPDATE", "kill", False, "not recorded"),
    ("no_begun", "change", "stepped", "kill", True, "orphaned"),
    ("no_rename", "change", "write", "tear", False, "torn"),
    ("no_sync", "create", "stepped", "kill", False, "before it was synced"),
    ("no_sync_of_blobs", "models", "stepped", "kill", False, "before it was synced"),
]
"""Guard, deed, boundary, fault, whether all is destroyed then, and what the campaign says."""

HEAVY = [("no_pointer", "experiment", "state/runs")]
"""Guard, the kind whose apply is killed around its steps, and what the campaign says."""

TESTS = {
    "no_journal": "engine/test_interrupted.py::test_a_change_goes_on_at_the_step_that_failed",
    "no_look": "faults/test_errors.py::test_a_step_that_brought_nothing_about_is_no_success",
    "no_stale": "engine/test_lifecycle.py::test_a_saved_plan_applies_exactly_and_refuses_when_stale",
    "no_lock": "faults/test_together.py::test_a_suspended_writer_keeps_its_lock_and_other_work_says_so",
    "no_other_host": "faults/test_together.py::test_a_writer_on_another_host_is_only_unlocked_by_hand",
    "no_stamp": "engine/test_interrupted.py::test_a_lost_or_damaged_ledger_is_a_problem_not_n_to_create",
    "no_sum": "engine/test_ledgers.py::test_a_changed_row_is_seen_and_the_last_copy_is_restored",
    "no_full_sync": "faults/test_syncs.py::test_nothing_is_told_before_it_is_on_disk",
    "no_doubt": "faults/test_syncs.py::test_every_sync_of_a_download_fails_in_its_turn",
    "no_undo": "faults/test_syncs.py::test_every_sync_of_a_download_fails_in_its_turn",
    "no_hash": "models/test_download.py::test_a_server_that_misbehaves_for_a_while_is_outlasted",
    "no_room": "models/test_apply.py::test_a_full_disk_is_told_before_a_byte_is_fetched_and_again_when_it_fills_up",
    "no_volume": "models/test_apply.py::test_two_volumes_one_is_unmounted_then_back_then_a_third_takes_the_model",
    "no_sweep": "models/test_gc.py::test_the_next_apply_removes_what_a_kill_left_also_where_nothing_is_to_do",
    "no_hour": "models/test_gc.py::test_what_another_lab_may_be_building_in_a_shared_store_is_left_alone_for_an_hour",
    "no_exchange": "faults/test_switches.py::test_a_view_is_the_old_one_or_the_new_one",
    "no_switch": "faults/test_switches.py::test_an_env_is_the_old_one_or_the_new_one",
    "no_lease": "experiments/test_runs.py::test_a_run_without_its_supervisor_is_told_so_and_its_end_is_known",
    "no_coordinator": "faults/test_switches.py::test_a_study_has_one_coordinator",
    "no_queue": "forecast/test_admission.py",
}
"""Guard → the test that fails without it."""


@pytest.mark.parametrize(("guard", "deed", "at", "how", "destroy", "says"), CAMPAIGNS)
def test_without_a_guard_the_loss_is_seen(
    quick: Path, zygote: Zygote, source: Path, guard: str, deed: str, at: str, how: str, destroy: bool, says: str
) -> None:
    """Each guard in turn; the same boundaries lose nothing with it."""
    known = {**deeds(), "models": deeds(source)["create"]}
    for without in (guard, ""):
        campaign = Campaign(quick / (without or "whole"), known[deed], zygote, broken=without)
        lines = {n: campaign.line(n) for n in campaign.every()}
        sites = [n for n, x in lines.items() if x["at"] == at and "stamp" not in x["path"]]
        for n in sites[:12]:
            campaign.kill(n, how, destroy=destroy)
        seen = [x for x in campaign.report.lost if says in x]
        assert bool(seen) == bool(without), str(campaign.report)
        assert without or not campaign.report.lost, str(campaign.report)


@pytest.mark.slow
@pytest.mark.parametrize(("guard", "kind", "says"), HEAVY)
def test_without_a_guard_heavy_work_is_repeated(
    quick: Path, zygote: Zygote, bench: dict[str, Deed], guard: str, kind: str, says: str
) -> None:
    """The same for what takes long."""
    for without in (guard, ""):
        campaign = Campaign(quick / (without or "whole"), bench[kind], zygote, broken=without)
        for n in [n for n in campaign.every() if campaign.line(n)["at"] in ("step", "stepped", "spawned")]:
            campaign.kill(n)
        seen = [x for x in campaign.report.lost if says in x]
        assert bool(seen) == bool(without), str(campaign.report)


@pytest.mark.slow
@pytest.mark.parametrize("guard", TESTS)
def test_without_a_guard_a_named_test_fails(guard: str) -> None:
    """The test is run as it is, in a process in which the guard is gone."""
    words = [
        "-q",
        "-x",
        "-p",
        "tests.faults.broken",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        f"tests/{TESTS[guard]}",
    ]
    env = {**os.environ, "LAB_FAULTS_BROKEN": guard}
    ran = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=REPO, env=env, capture_output=True, text=True)
    assert ran.returncode == 1, ran.stdout[-2000:]
    assert "\nFAILED " in ran.stdout, ran.stdout[-2000:]


def test_no_guard_is_forgotten() -> None:
    """Each that can be taken away is caught by something above."""
    caught = {*TESTS, *(g for g, *_ in CAMPAIGNS), *(g for g, *_ in HEAVY)}
    assert caught == {n for n in vars(broken) if n.startswith("no_")}
