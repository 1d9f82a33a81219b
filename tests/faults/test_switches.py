"""What people look at while it is replaced is the old or the new, at every moment; and one alone replaces it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.adapters import clone, envs, experiments, files, store
from lab.core.problem import Problems
from lab.runs import sweep_folder
from tests.faults import hook
from tests.faults.hook import Fault, Killed


def stopped_everywhere(top: Path, before: Callable[[], None], deed: Callable[[], None]) -> Iterator[int]:
    """Yields after `deed` was stopped before each of its effects in turn, and at last when it was not stopped."""
    for at in range(1, 100):
        before()
        back = hook.install(Fault(str(top), f"{top}.log", at, raising=True))
        try:
            deed()
        except Killed:
            yield at
            continue
        finally:
            back()
        yield 0
        return


def test_an_env_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """Its link leads to one of them, wherever the switch is stopped."""
    link, (old, new) = tmp_path / "one", (tmp_path / ".made/one" / n for n in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    seen = []
    for _ in stopped_everywhere(tmp_path, lambda: envs.switch(link, old), lambda: envs.switch(link, new)):
        seen.append(os.path.realpath(link))
    assert seen[-1] == str(new)
    assert set(seen[:-1]) == {str(old)}


def test_a_view_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    """A model's folder holds the old files or the new ones, whole."""
    blobs = {}
    for text in ("old", "new"):
        (tmp_path / text).write_text(text)
        blobs[text] = store.copy(tmp_path / "store", tmp_path / text)
    seen = []

    def show(text: str) -> None:
        store.view(tmp_path / "store", "m/original", {"weights": blobs[text]}, {"lab": "x", "text": text})

    for _ in stopped_everywhere(tmp_path, lambda: show("old"), lambda: show("new")):
        file = tmp_path / "store/models/m/original/weights"
        seen.append(file.read_text() if file.exists() else "nothing")
    assert seen[-1] == "new"
    assert set(seen) == {"old", "new"}
    assert len(seen) > 5


@pytest.mark.parametrize("what", ["file", "pointer"])
def test_a_file_and_a_pointer_are_the_old_one_or_the_new_one(tmp_path: Path, what: str) -> None:
    """Whoever reads one while it is replaced reads one of them, whole."""

    def put(text: str) -> None:
        if what == "file":
            files.put(tmp_path / "f", text.encode())
        else:
            experiments.point(tmp_path, "e", {"run": text})

    def got() -> str:
        return (tmp_path / "f").read_text() if what == "file" else experiments.pointer(tmp_path, "e").get("run", "")

    seen = [got() for _ in stopped_everywhere(tmp_path, lambda: put("old"), lambda: put("new"))]
    assert seen[-1] == "new"
    assert set(seen) <= {"old", "new"}


def test_a_study_has_one_coordinator(tmp_path: Path) -> None:
    """A second one is told who is first."""
    folder = tmp_path / "state/sweeps/study"
    second = sweep_folder.coordinated(folder)
    with sweep_folder.coordinated(folder), pytest.raises(Problems, match="is being coordinated already"):
        second.__enter__()
    with sweep_folder.coordinated(folder):
        pass


def test_three_renames_are_no_exchange(tmp_path: Path) -> None:
    """The file system here changes two folders in one step: what the test of views rests on."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    clone.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/b").exists()
    assert (tmp_path / "b/a").exists()
