"""`lab init` leaves a committed, plannable lab; what it cannot do it says, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import git
import jsonschema
import pytest
import yaml

from lab.app.init import PERSONAS, init, recipes
from lab.app.machine_scan import environment, prefixes, text
from lab.app.schema import schema, write
from lab.core.problem import Problems
from lab.declare import load
from lab.declare.read import read
from lab.declare.schema import schemas

from .conftest import GOOD, Make


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_is_a_sound_lab(tmp_path: Path, recipe: str) -> None:
    """Each whole-lab recipe is committed clean, has an id of its own, and loads under each profile (S0-3.2-1)."""
    made = init(tmp_path / "my lab", recipe=recipe)
    again = init(tmp_path / "other", recipe=recipe)
    repository = git.Repo(made.root)
    assert not repository.is_dirty(untracked_files=True)
    assert len(list(repository.iter_commits())) == 1
    assert {"conf/lab.yaml", "README.md", ".gitignore", "docs/README.md", "state/README.md"} <= set(made.files)
    assert not [p for p in made.files if b"LAB_ID" in (made.root / p).read_bytes()]
    for path in (made.root / "conf").glob("[!h.]*/*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first.startswith(("# yaml-language-server: $schema=../.schema/", "# @package _global_"))
    for profile in sorted(p.stem for p in (made.root / "conf/profile").glob("*.yaml")):
        found = load(made.root, profile=profile)
        assert found.declarations
        assert found.head["lab"]["name"] == "my-lab"
        assert found.head["lab"]["id"] != load(again.root).head["lab"]["id"]


PLANS = {
    "starter": ["create file.welcome"],
    "researcher": [
        "create experiment.first", "create file.welcome", "create model.tiny_lm", "create quantization.tiny_lm_q4",
    ],
    "app-developer": ["create model.tiny_lm", "create quantization.tiny_lm_q4", "create file.app"],
    "host-guests": ["create file.rules"],
    "size_ladder": [
        "create file.welcome", *(f"create model.rung_{n:02}" for n in range(1, 11)),
        *(f"create experiment.rung.{n:02}" for n in range(1, 11)), "create experiment.ladder",
    ],
}  # fmt: skip


@pytest.mark.parametrize("recipe", PLANS)
def test_every_recipe_plans_as_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """A fresh lab of each recipe plans at once, offline, and its listing is this one (S0-3.2-1)."""
    from lab.app.lab import Lab
    from lab.app.plan import plan

    monkeypatch.setenv("LAB_STORE", str(tmp_path / "store"))
    found = plan(Lab(init(tmp_path / "lab", recipe=recipe).root))
    assert found.problems == ()
    assert [f"{c.action} {c.address}" for c in found.changes] == PLANS[recipe]


def test_what_the_machine_holds_is_declared(tmp_path: Path) -> None:
    """Models of other tools and conda environments become files that Lab takes; what does not fit is told."""
    home = tmp_path / "home"
    weights = home / ".lmstudio/models/org/Tiny-1.5B-GGUF/tiny-1.5b.gguf"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"GGUF" + bytes(100))
    meta = home / "miniforge3/envs/work/conda-meta"
    meta.mkdir(parents=True)
    record = {"name": "python", "version": "3.12.1", "channel": "https://conda.anaconda.org/conda-forge/linux-64"}
    (meta / "python-3.12.1-0.json").write_text(json.dumps(record))
    (home / "miniforge3/envs/bad/conda-meta").mkdir(parents=True)
    made = init(tmp_path / "lab", from_machine=True, home=home)
    assert made.found == {
        "env.work": f"the packages of {meta.parent}, which stays as it is: `lab apply` builds an env of the lab's own",
        "model.tiny-1_5b": "found in LM Studio's folder: 104 B, left where it is",
    }
    assert [n.partition(": ")[2] for n in made.notes] == ["it holds no packages"]
    found = load(made.root)
    assert {*made.found} < set(found.declarations)
    assert not git.Repo(made.root).is_dirty(untracked_files=True)


def test_personas_and_profiles(tmp_path: Path) -> None:
    """A persona is a recipe; a profile is put in force; the starter is what one gets without either (S0-3.2-1)."""
    assert set(PERSONAS) <= set(recipes())
    assert init(tmp_path / "a", persona="host-guests").recipe == "host-guests"
    made = init(tmp_path / "b", profile="team", name="ours")
    assert made.recipe == init(tmp_path / "c", recipe="lab/starter").recipe == "starter"
    assert (load(made.root).profile, load(made.root).head["lab"]["name"]) == ("team", "ours")
    assert load(made.root).head["apply"]["require"] == "clean"


def test_what_cannot_be_made_is_a_problem_and_leaves_nothing(tmp_path: Path) -> None:
    """A folder that is not empty, a file, unknown recipes, personas and profiles: told with the nearest."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder, options, summary in [
        ("full", {}, f"{tmp_path}/full is not empty"),
        ("file", {}, f"{tmp_path}/file is a file"),
        ("new", {"recipe": "strater"}, "there is no lab recipe `strater` — did you mean `starter`?"),
        ("new", {"persona": "reseacher"}, "there is no persona `reseacher` — did you mean `researcher`?"),
        ("new", {"profile": "taem"}, "the recipe has no profile `taem` — did you mean `team`?"),
        ("new", {"recipe": "starter", "persona": "researcher"}, "a recipe and a persona were given"),
        ("new", {"name": "a b"}, "`a b` is no name for a lab"),
        ("new", {"recipe": "../model"}, "there is no lab recipe `../model`"),
    ]:
        with pytest.raises(Problems) as caught:
            init(tmp_path / folder, **options)  # type: ignore[arg-type]
        assert caught.value.problems[0].summary == summary
    assert not (tmp_path / "new").exists()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full", "x"]


def test_an_empty_git_repository_is_taken(tmp_path: Path) -> None:
    """A repository without commits gets its first."""
    git.Repo.init(tmp_path / "r")
    assert git.Repo(tmp_path / "r").head.is_valid() is False
    assert init(tmp_path / "r").commit == git.Repo(tmp_path / "r").head.commit.hexsha


def test_schemas_accept_what_lab_accepts(make: Make, tmp_path: Path) -> None:
    """Every schema is valid draft 2020-12, describes every field, and agrees with Lab on good and bad files."""
    for name, found in schemas().items():
        jsonschema.Draft202012Validator.check_schema(found)
        missing = [f for f, s in found["properties"].items() if f != "defaults" and not s.get("description")]
        assert name == "host" or not missing, (name, missing)
    check = jsonschema.Draft202012Validator(schema("file"))
    assert check.is_valid(yaml.safe_load(GOOD))
    assert check.is_valid({"path": "${lab.store}/x", "content": "x", "tags": "${vars.tags}", "protect": "${vars.p}"})
    assert check.is_valid({"defaults": ["_base"], "content": "x"})
    for bad in (
        {"path": 5, "content": "x"},
        {"path": "/a", "conten": "x"},
        {"content": "x"},
        {"path": "/a", "tags": "t"},
    ):
        assert not check.is_valid(bad)
    with pytest.raises(Problems, match="did you mean `file`"):
        schema("fiel")
    root = make({"file/a.yaml": GOOD})
    assert {p.name for p in write(root)} == {f"{n}.json" for n in schemas()}
    assert write(root) == []
    assert json.loads((root / "conf/.schema/file.json").read_text())["title"] == "file"


def test_the_reference_lab_and_every_recipe_file_fit_their_schemas() -> None:
    """What the repository itself declares passes the schemas that editors are given."""
    base = Path(__file__).parents[2]
    checks = {k: jsonschema.Draft202012Validator(s) for k, s in schemas().items() if k != "profile"}
    for path in [*base.glob("conf/*/*.yaml"), *base.glob("recipes/lab/*/conf/*/*.yaml")]:
        if check := checks.get(path.parent.name):
            found = read(path.read_bytes(), path.name).value
            assert [e.message for e in check.iter_errors(found)] == [], path


def test_conda_environments_are_found(tmp_path: Path) -> None:
    """An environment's specs come from its history, pip's packages from their records; base and envs/ alike."""
    prefix = tmp_path / "miniforge3/envs/work"
    meta = prefix / "conda-meta"
    meta.mkdir(parents=True)
    for name, version, depends in (("python", "3.12.1", []), ("numpy", "2.1", ["python"]), ("zlib", "1.3", [])):
        record = {"name": name, "version": version, "depends": depends,
                  "channel": "https://conda.anaconda.org/conda-forge/linux-64"}  # fmt: skip
        (meta / f"{name}-{version}-0.json").write_text(json.dumps(record))
    (meta / "history").write_text("# update specs: ['python=3.12', \"numpy>=2\", 'gone']\n# remove specs: ['gone']\n")
    info = prefix / "lib/python3.12/site-packages/rich-13.0.dist-info"
    info.mkdir(parents=True)
    (info / "INSTALLER").write_text("pip\n")
    assert prefixes(tmp_path) == [prefix]
    block, why = environment(prefix)
    assert (why, block) == (
        "",
        {"channels": ["conda-forge"], "conda": ["python 3.12.1", "numpy 2.1"], "pip": ["rich==13.0"]},
    )
    (meta / "history").unlink()
    assert environment(prefix)[0]["conda"] == ["numpy 2.1", "zlib 1.3"]
    assert text("env", block, "found in x").startswith(
        "# yaml-language-server: $schema=../.schema/env.json\n# found in x\n"
    )
    (meta / "python-3.12.1-0.json").write_text("{")
    assert environment(prefix) == ({}, "python-3.12.1-0.json cannot be read")
