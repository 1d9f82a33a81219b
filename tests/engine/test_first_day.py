"""The first day: a new lab is whole and documented, the reference lab declares everything, and the wheel carries it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lab.app.init import init
from lab.declare.conf import known_kinds
from tests.labs import REPO, Ran, TestLab

MISSPELT = {
    "env/greeting": ("channels", "chanels"),
    "model/tiny_lm": ("recipe", "recpie"),
    "quantization/tiny_lm_q4": ("format", "fromat"),
    "experiment/demo_train": ("params", "parms"),
    "sweep/demo_rate": ("trials", "trails"),
    "guest/visitor": ("keys", "kesy"),
    "backup/nightly": ("keep", "kepe"),
}


def test_a_new_lab_is_ready_and_applied_at_once(tmp_path: Path) -> None:
    """`lab init`, `bootstrap`, `doctor`, `apply`, `plan`: one commit, nothing left to do (S1-D9.1-1, S0-5.1-2)."""
    lab = TestLab(tmp_path / "new")
    home = {"LAB_STORE": str(tmp_path / "store"), "HOME": str(tmp_path)}

    def run(*words: str) -> Ran:
        return lab.run(*words, env=home)

    made = subprocess.run(
        [sys.executable, "-m", "lab", "init", str(lab.root)],
        env={**os.environ, "PYTHONPATH": str(REPO), **home},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    assert lab.git("rev-list", "--count", "HEAD").strip() == "1"
    assert lab.git("status", "--porcelain") == ""
    for name in (
        "README.md",
        "docs/README.md",
        "conf/lab.yaml",
        "playbooks",
        "state/README.md",
        "models/README.md",
        "experiments/README.md",
        "conf/.schema/file.json",
    ):
        assert (lab.root / name).exists(), name
    assert run("docs", "--check").code == 0
    assert run("bootstrap", "--check").code == 0
    assert run("doctor").code == 0
    assert run("apply", "--yes").code == 0
    assert run("plan", "--detailed-exitcode").code == 0
    assert lab.git("status", "--porcelain") == ""


def test_two_labs_of_one_store_leave_each_others_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labs made one after the other, as the README has it, are both as declared when both were applied."""
    monkeypatch.setenv("LAB_STORE", str(tmp_path / "store"))
    labs = [TestLab(init(tmp_path / name).root) for name in ("mine", "found")]
    assert [lab("apply", "--yes").code for lab in labs] == [0, 0]
    assert [lab("plan", "--detailed-exitcode").code for lab in labs] == [0, 0]


def test_what_recipes_lists_new_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and quantizations of every recipe, by the names that `lab recipes` prints."""
    monkeypatch.setenv("LAB_STORE", str(tmp_path / "store"))
    lab = TestLab(init(tmp_path / "lab").root)
    for kind in ("model", "quantization"):
        for listed in (line.split()[0] for line in lab("recipes", kind).out.splitlines()[:-1]):
            asked = () if kind == "model" else ("model=tiny_lm",)
            ran = lab("new", kind, Path(listed).name, "--from", listed, *asked)
            if ran.code:  # told once, not once for each level
                assert ran.err.count("texts/calibration.txt is not there") == 1, ran.err
                lab.write("texts/calibration.txt", "A text of mine.")
                ran = lab("new", kind, Path(listed).name, "--from", listed, *asked)
            assert ran.code == 0, ran.err
    assert lab("plan").code == 0
    assert (lab.root / "texts").exists()


def test_a_misspelt_key_of_any_kind_names_its_file_and_the_right_word(tmp_path: Path) -> None:
    """The reference lab declares all seven kinds and is sound; a slip in each is told, all at once (DC-1)."""
    lab = TestLab(tmp_path / "lab")
    for part in ("conf", "playbooks", "recipes"):
        shutil.copytree(REPO / part, lab.root / part)
    env = {"LAB_STORE": str(tmp_path / "store"), "HOME": str(tmp_path)}
    sound = lab.run("validate", "--all-profiles", env=env)
    assert sound.code == 0, sound.out
    lines = {}
    for name, (right, wrong) in MISSPELT.items():
        path = lab.root / f"conf/{name}.yaml"
        text = path.read_text()
        assert f"\n{right}:" in f"\n{text}", name
        lines[name] = f"\n{text}".partition(f"\n{right}:")[0].count("\n") + 1
        path.write_text(f"\n{text}".replace(f"\n{right}:", f"\n{wrong}:", 1)[1:])
    told = lab.run("validate", "--all-profiles", env=env)
    assert told.code == 1
    for name, (right, wrong) in MISSPELT.items():
        address = name.replace("/", ".")
        said = f"conf/{name}.yaml:{lines[name]}:1  unknown key `{wrong}` in {address} — did you mean `{right}`?"
        assert said in told.out, said


@pytest.mark.slow
def test_the_wheel_carries_playbooks_and_recipes(tmp_path: Path) -> None:
    """The repository is itself a lab, and what is built of it works without it: recipes are found and made (DC-12)."""
    for entry in ("pyproject.toml", "lab", "conf", "playbooks", "recipes", "state", "tests", "docs"):
        assert (REPO / entry).exists()
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(REPO)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("llm_lab-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    names = {p.relative_to(REPO) for f in ("playbooks", "recipes") for p in (REPO / f).rglob("*.y*ml")}
    assert names
    assert all((tmp_path / "site/lab/_shipped" / n).is_file() for n in names)
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "site")}
    for words in (["recipes"], ["init", "made", "--recipe", "researcher"], ["-C", "made", "plan"]):
        ran = subprocess.run(
            [sys.executable, "-m", "lab", *words], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
    assert "4 to create" in ran.stdout


def test_brought_up_in_four_steps_it_is_the_lab_that_one_apply_makes(tmp_path: Path) -> None:
    """The tutorial's four commands name each kind once at most, and end where one apply ends (S0-9.3-1)."""
    said = (REPO / "docs/tutorials/your-mac.md").read_text().partition("## 7.")[2]
    steps = [re.findall(r"--only (\w+)", line) for line in re.findall(r"^lab apply.*$", said, re.M)]
    named = [kind for step in steps for kind in step]
    assert (len(steps), steps[-1], len(named)) == (4, [], len(set(named)))
    assert {*named, "maintenance"} == set(known_kinds())
    files = {
        "file/a": "path: ROOT/out/a\ncontent: a\nneeds: [dataset.d]\n",
        "model/m": "path: ROOT/out/weights\nplace: copy\n",
        "dataset/d": "path: ROOT/out/rows\n",
        "experiment/e": "command: 'cat ${dataset.d.path}/rows.csv'\n",
        "maintenance/m": 'window: ""\n',
    }
    words = [[f"--only={kind}" for kind in step if f"{kind}/" in " ".join(files)] for step in steps]
    ends = []
    for name, applies in (("one", [[]]), ("four", words)):
        lab = TestLab.make(tmp_path / "lab", files)
        lab.write("out/rows/rows.csv", "a,b\n1,2\n")
        lab.write("out/weights/notes.txt", "weights")
        for only in applies:
            ran = lab("apply", "--yes", *only)
            assert ran.code == 0, ran.out + ran.err
        assert lab("plan", "--detailed-exitcode").code == 0
        ends.append({one["address"]: one["digest"] for one in json.loads(lab("state", "list", "--json").out)})
        lab.root.rename(tmp_path / name)
    assert ends[0] == ends[1]
    assert len(ends[0]) == len(files)
