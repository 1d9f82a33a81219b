"""A model that is made here, by a recipe or an experiment, is kept in the store like any other. (S0-5.2-2)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models import make
from tests.models.conflab import Folder

RECIPE = """
import argparse, json, sys
import os
import subprocess
import sys
from pathlib import Path
p = argparse.ArgumentParser(); p.add_argument("--out", type=Path); p.add_argument("--params", type=Path)
a = p.parse_args()
sys.path.insert(0, {root!r})
from tests.models import make
make.safetensors(a.out, {{"max_position_embeddings": json.loads(a.params.read_text()).get("context", 512)}})
"""


@pytest.fixture
def lab(tmp_path: Path) -> Folder:
    lab = Folder(tmp_path / "lab")
    recipe = lab.root / "recipes/model/toy/train.py"
    recipe.parent.mkdir(parents=True)
    recipe.write_text(RECIPE.format(root=str(Path(__file__).parents[2])))
    return lab


def test_a_recipes_model_is_trained_once_kept_and_trained_again_when_its_recipe_changes(lab: Folder) -> None:
    lab.declare("toy", recipe="toy", params={"context": 128})
    lab.ok("apply", "--yes")
    assert "No changes" in lab.ok("plan")
    (entry,) = lab.json("models")
    assert (entry["context"], entry["format"]) == (128, "safetensors")
    assert not list((lab.root / "state/work").rglob("config.json"))
    blob = Path(next(f["lies_in"] for f in lab.json("models", "show", "toy")["files"] if f["name"] == "config.json"))
    blob.chmod(0o644)
    blob.write_text("{}")
    assert "config.json" in lab.ok("plan")
    lab.ok("apply", "--yes")
    assert '"max_position_embeddings": 128' in blob.read_text()
    recipe = lab.root / "recipes/model/toy/train.py"
    recipe.write_text(recipe.read_text() + "# changed\n")
    assert "1 to update" in lab.ok("plan") or "1 to replace" in lab.ok("plan")


@pytest.mark.slow
def test_an_experiments_output_is_a_model(lab: Folder, tmp_path: Path) -> None:
    make.gguf(tmp_path / "made.gguf")
    lab.declare(
        "tune", "experiment", command=f"cp {tmp_path / 'made.gguf'} {{outputs.model}}", outputs={"model": "made.gguf"}
    )
    lab.declare("tuned", **{"from": "tune"})
    lab.ok("apply", "--yes")
    assert "No changes" in lab.ok("plan")
    (entry,) = lab.json("models")
    assert (entry["format"], entry["source"]) == ("gguf", "from: experiment.tune")


def test_a_recipes_model_is_moved_to_another_name_family_and_store_without_training(
    lab: Folder, tmp_path: Path
) -> None:
    file = lab.declare("toy", recipe="toy")
    lab.ok("apply", "--yes")
    (lab.root / "recipes/model/toy/train.py").touch()
    count = lab.root / "state/work/model.toy/train.log"
    file.unlink()
    lab.declare("tiny", recipe="toy", family="small")
    head = lab.root / "conf/lab.yaml"
    head.write_text(head.read_text() + "moved: [{from: model.toy, to: model.tiny}]\n")
    lab.ok("apply", "--yes")
    assert "No changes" in lab.ok("plan")
    assert not list((lab.root / "state").rglob("train.log")), count
    assert (lab.store / "models/small/tiny/original/config.json").is_file()
    assert not (lab.store / "models/toy").exists()
    head.write_text(head.read_text().replace("store:", f"stores: {{bulk: {tmp_path / 'bulk'}}}\n  store:"))
    lab.ok("models", "move", "tiny", "bulk")
    lab.ok("apply", "--yes")
    assert "No changes" in lab.ok("plan")
    assert (tmp_path / "bulk/models/small/tiny/original/config.json").is_file()
    assert not list((lab.root / "state").rglob("train.log"))


KILLED = """
import os, shutil, sys
real, left = shutil.rmtree, int(sys.argv.pop(1))
def rmtree(path, *args, **more):
    if "state/work/model.toy/" in str(path) and os.path.isfile(os.path.join(path, "config.json")):
        files = sorted(f for f in os.listdir(path) if f != "model.safetensors")
        for name in files[left:] + ["model.safetensors"] * (left < 9):
            os.unlink(os.path.join(path, name))
        if not left:
            real(path)
        os.kill(os.getpid(), 9)
    real(path, *args, **more)
shutil.rmtree = rmtree
from lab.cli.main import run
run()
"""


@pytest.mark.parametrize("left", [0, 1, 9])
def test_killed_while_what_was_trained_is_cleared_away_the_model_is_whole(lab: Folder, left: int) -> None:
    """Also where half of its folder is gone, and where all of it is: the next apply has nothing to make."""
    recipe = lab.root / "recipes/model/toy/train.py"
    recipe.write_text(f"{recipe.read_text()}open({str(lab.root / 'trained')!r}, 'a').write('once')\n")
    lab.declare("toy", recipe="toy")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    line = [sys.executable, "-c", KILLED, str(left), "-C", str(lab.root), "apply", "--yes"]
    assert subprocess.run(line, env=env, capture_output=True).returncode == -9
    lab.ok("apply", "--yes")
    assert (lab.root / "trained").read_text() == "once"
    assert "No changes" in lab.ok("plan")
    lab.ok("verify")
    assert (lab.store / "models/toy/original/model.safetensors").is_file()
    assert (lab.store / "models/toy/original/config.json").is_file()
    assert not list((lab.root / "state/work").iterdir())
