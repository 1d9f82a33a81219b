"""The best parameters go into the experiment's YAML as the smallest change; comments, order and spelling stay.

Proves DC-8 and S3-5.4-1 (promote makes a git diff with the best values).
"""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.problem import Problems
from lab.declare.read import read
from lab.declare.yaml_edit import edit, scalar
from tests.sweeps.conftest import Place

TEXT = """\
# what trains the tiny model
call: train:main   # in train.py
params:
  # found by hand
  lr: 0.001    # rate
  opt: {name: sgd, momentum: 0.9}  # flow
  "width": 64

metrics: [loss]
"""


def test_only_the_values_change() -> None:
    """Comments, blank lines, quotes and flow style stay; a missing key goes to the end of its mapping."""
    values = {
        "params.lr": 1e-05,
        "params.opt.name": "adam",
        "params.opt.beta": 0.5,
        "params.width": 128,
        "params.new": True,
    }
    changed = edit(TEXT, values, "f")
    assert changed == TEXT.replace("0.001 ", "1.0e-05 ").replace(
        "sgd, momentum: 0.9", "adam, momentum: 0.9, beta: 0.5"
    ).replace('"width": 64\n', '"width": 128\n  new: true\n')


def test_a_list_takes_the_place_of_a_list_or_a_value() -> None:
    """In one line, as it was; one over several lines is left to its author."""
    text = "params: {widths: [8, 8], names: x}  # kept\n"
    changed = edit(text, {"params.widths": [64, [1.5, "a, b"]], "params.names": ["y"], "params.none": []}, "f")
    assert changed == "params: {widths: [64, [1.5, 'a, b']], names: [y], none: []}  # kept\n"
    for text in ("widths:\n- 8\n", "widths: [8,\n  8]\n", "widths: [&a 8, *a]\n"):
        with pytest.raises(Problems):
            edit(text, {"widths": [64]}, "f")


def test_the_same_value_is_left_as_it_is_spelled() -> None:
    """`1e-3` stays `1e-3`."""
    text = "params: {lr: 1e-3, n: 0o10}\n"
    assert edit(text, {"params.lr": 0.001}, "f") == text


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "call: a:b\n", "call: a:b\nparams: {}\n", "call: a:b  # x"])
def test_missing_mappings_are_made(text: str) -> None:
    """Whatever the file held before."""
    value = read(edit(text, {"params.a.b": 2.5}, "f").encode(), "f").value
    assert value["params"] == {"a": {"b": 2.5}}


@pytest.mark.parametrize(
    "text", ["params: 3\n", "params: {lr: [1]}\n", "params: {lr: &a 1}\n", "params: {lr: '${x}'}\n"]
)
def test_what_cannot_be_changed_is_a_problem(text: str) -> None:
    """With file and line; nothing is guessed."""
    with pytest.raises(Problems):
        edit(text, {"params.lr": 2}, "f")


@given(
    st.one_of(
        st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans(), st.none(), st.text(max_size=12)
    )
)
def test_every_scalar_is_read_back(value: object) -> None:
    """By the reader that reads a lab."""
    if isinstance(value, str) and any(
        ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 or ord(c) > 0xFFFD for c in value
    ):
        return
    found = read(f"x: {scalar(value)}\n".encode(), "f").value["x"]
    assert (type(found), found) == (type(value), value)


def test_the_best_is_promoted_and_the_sweep_stays_as_declared(place: Place) -> None:
    """The working tree has the best values; the experiment is what changes, not the sweep."""
    git(place, "init", "-q")
    place.write(".gitignore", "state/\n__pycache__/\n")
    place.write(
        "conf/experiment/bowl.yaml",
        "call: bowl:main\nparams:\n  x: 0.0  # east\n  y: 0.0\n  opt: sgd\nmetrics: [loss]\n",
    )
    place.write(
        "conf/sweep/find.yaml",
        {
            "experiment": "bowl",
            "space": {"x": [0.0, 1.0], "opt": ["sgd", "adam"]},
            "objective": "loss",
            "sampler": "grid",
        },
    )
    git(place, "add", "-A")
    git(place, "commit", "-qm", "lab")
    place.lab("apply", "--yes")
    assert "No changes" in place.lab("plan")
    on_branch = place.lab("sweep", "promote", "find", "--branch", "better")
    assert "Committed on better" in on_branch
    assert git(place, "status", "--porcelain") == ""
    assert "trial" in git(place, "log", "-1", "--format=%B", "better")
    out = place.lab("sweep", "promote", "find")
    assert "+  x: 1.0  # east" in out
    assert "+  opt: adam" in out
    assert "rerun experiment.bowl" in out
    assert "sweep.find" not in out
    assert git(place, "diff", "better", "--", "conf") == ""
    assert "already" in place.lab("sweep", "promote", "find")


def git(place: Place, *args: str) -> str:
    """What git says in the lab's folder."""
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *who, *args], cwd=place.root, capture_output=True, text=True, check=True
    ).stdout.strip()


NET = """
def main(widths: list, run):
    run.log({"loss": abs(sum(widths) - 96.0)})
"""


def test_a_list_is_searched_and_promoted_as_a_list(place: Place) -> None:
    """Every trial is given the list itself; table and CSV show it, and the best one goes into the YAML."""
    place.write("net.py", NET)
    place.write("conf/experiment/net.yaml", "call: net:main\nparams: {widths: [8]}  # layers\nwhen: manual\n")
    found = place.sweep("net", "widths=[64],[64,32],[]", "--sampler", "grid", "--minimize", "loss")
    assert (found["complete"], found["best"]["params"]) == (3, {"widths": [64, 32]})
    assert "widths=[64, 32]" in place.lab("sweep", "show", "net")
    assert '"[64, 32]"' in place.lab("sweep", "csv", "net")
    place.lab("sweep", "plot", "net")
    assert (
        place.sweep("net", "widths=[64],[64,32],[]", "--sampler", "grid", "--minimize", "loss")["complete"] == 3
    )  # the same study
    place.lab("sweep", "promote", "net")
    assert "params: {widths: [64, 32]}  # layers" in (place.root / "conf/experiment/net.yaml").read_text()
