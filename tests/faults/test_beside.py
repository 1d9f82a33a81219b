"""Work beside work: an apply, a destroy, a rollback or a gc beside living runs, sweeps and backups loses nothing.

A run keeps its env, its model and its rows to its end; who would take them waits, or says who reads them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.beside import RUN, SWEEP, SWEPT, Bench, Beside


@pytest.fixture
def beside(tmp_path: Path, stands: Bench) -> Iterator[Beside]:
    """A lab with a run that lives."""
    made = Beside(tmp_path, stands, {"experiment/long": RUN})
    made.begin()
    yield made
    (made.lab.root / "go").touch()


@pytest.mark.slow
def test_an_apply_beside_a_run_changes_the_env_and_waits_with_what_it_reads(beside: Beside) -> None:
    """The env is built beside; the model and the rows are told to be read, by whom; what depends on neither is done."""
    beside.declare(2)
    ran = beside("apply", "--yes")
    assert ran.code == 1, ran
    assert "model.base is read by long-" in ran.err, ran.err
    assert "dataset.rows is read by long-" in ran.err, ran.err
    assert "lab stop long-" in ran.err, ran.err
    assert (beside.lab.root / "out/note").read_text() == "note 2"
    assert beside(
        "env", "run", "one", "--", "python", "-c", "import pinned_one; print(pinned_one.__version__)"
    ).out == ("2.0\n")
    # Twice replaced, the first prefix would be gone if the run did not hold it.
    beside.declare(1)
    assert beside("apply", "--yes", "env.one").code in (0, 1)
    beside.declare(2)
    beside("apply", "--yes")
    beside.as_first(beside.finish())
    beside.settled()


@pytest.mark.slow
def test_a_short_wait_is_enough_where_the_run_ends(beside: Beside) -> None:
    """The change waits for the run, then is made: nothing is told, nothing fails."""
    beside.declare(2)
    conf = beside.lab.root / "conf/lab.yaml"
    conf.write_text(conf.read_text().replace("patience: 0.3", "patience: 60"))
    child = beside.lab.child("apply", "--yes", env=beside.bench.env)
    time.sleep(1.0)
    assert child.poll() is None
    beside.as_first(beside.finish())
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, (out, err)
    beside.settled()


@pytest.mark.slow
def test_a_destroy_beside_a_run_leaves_what_it_uses(beside: Beside) -> None:
    """Env, model and rows stay and are told; the rest is gone; afterwards all of it goes."""
    ran = beside("destroy", "--all", "--yes")
    assert ran.code == 1, ran
    for address in ("env.one", "model.base", "dataset.rows"):
        assert f"{address} is read by long-" in ran.err, ran.err
    assert not (beside.lab.root / "out/note").exists()
    beside.as_first(beside.finish())
    assert beside("destroy", "--all", "--yes").code == 0
    assert "Nothing is recorded" in beside("state", "list").out
    assert not list((beside.lab.root / "store/models").rglob("*.safetensors"))


@pytest.mark.slow
def test_a_rollback_beside_a_run(beside: Beside) -> None:
    """To a generation before, in which other files were declared: the run goes on with what it began with."""
    (beside.lab.root / "conf/file/note.yaml").write_text("path: out/other\ncontent: other\n")
    assert beside("apply", "--yes").code == 0
    ran = beside("rollback", "1", "--yes")
    assert ran.code == 0, ran
    assert (beside.lab.root / "out/note").read_text() == "note 1"
    beside.as_first(beside.finish())
    beside.settled()


@pytest.mark.slow
def test_a_gc_beside_a_run_frees_nothing_it_reads(beside: Beside) -> None:
    """The model and the rows are declared no more, and even unknown to the ledger: the run reads them to its end."""
    beside.declare(1, "model/base", "dataset/rows", "experiment/long")
    assert beside("apply", "--yes", "--allow-destroy").code == 1
    assert beside("state", "rm", "model.base", "dataset.rows").code == 0
    assert beside("gc", "--yes").code == 0
    beside.as_first(beside.finish())
    assert beside("gc", "--yes").code == 0
    assert not list((beside.lab.root / "store/models").rglob("*.safetensors"))
    assert list((beside.lab.root / "store/blobs").rglob("*"))  # the run's record names its content
    beside.settled()


@pytest.mark.slow
def test_an_apply_beside_a_sweep_changes_nothing_under_its_next_trials(tmp_path: Path, stands: Bench) -> None:
    """Both trials of a sweep see one env, one model, the same rows, although an apply came between them."""
    beside = Beside(tmp_path, stands, {"experiment/swept": SWEPT})
    beside.more = {**beside.more, "sweep/two": SWEEP}
    beside.declare(1)
    sweep = beside.lab.child("sweep", "two", env=stands.env)
    beside.begun("go*")
    beside.declare(2)
    ran = beside("apply", "--yes", "--exclude", "sweep.two")
    assert ran.code == 1, ran
    for address in ("env.one", "model.base", "dataset.rows"):
        assert f"{address} is read by two-" in ran.err, ran.err
    assert (beside.lab.root / "out/note").read_text() == "note 2"
    for name in ("go1", "go2"):
        (beside.lab.root / name).touch()
    out, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, (out, err)
    seen = [json.loads(p.read_text()) for p in (beside.lab.root / "state/runs").glob("*/seen.json")]
    assert len(seen) == 2
    for one in seen:
        beside.as_first(one)
    beside.settled()
