"""What other tools hold is found, declared and adopted where it lies; they still find it there. (S0-US-004-3)"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lab.adapters.scan import scan
from tests.models import make
from tests.models.conflab import Folder
from tests.models.servers import sha256
from tests.models.test_sources import cached, hashes


@pytest.fixture
def machine(home: Path, tmp_path: Path) -> Path:
    """A home with a model in each tool."""
    make.safetensors(tmp_path / "src")
    cached(home, tmp_path / "src", "org/tiny", "c" * 40)
    studio = home / ".lmstudio/models/lm/phi-GGUF"
    studio.mkdir(parents=True)
    make.gguf(studio / "phi-Q8_0.gguf", tokens=50)
    make.gguf(studio / "mmproj-phi.gguf", tokens=10)
    make.safetensors(home / ".lmstudio/models/mlx/phi-4bit", {"quantization": {"bits": 4, "group_size": 64}})
    make.gguf(tmp_path / "o.gguf", tokens=60)
    data = (tmp_path / "o.gguf").read_bytes()
    blobs = home / ".ollama/models/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"sha256-{sha256(data)}").write_bytes(data)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{sha256(data)}", "size": len(data)}
    place = home / ".ollama/models/manifests/registry.ollama.ai/library/gem/2b"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}))
    (place.parent / "broken").write_text("{")
    return home


def test_a_machines_models_are_found_declared_and_adopted_without_a_copy(machine: Path, tmp_path: Path) -> None:
    found = scan(machine)
    assert [(f.name, next(iter(f.block))) for f in found] == [
        ("tiny", "hub"), ("gem_2b", "ollama"), ("phi-4bit", "path"), ("phi-Q8_0", "path"),
    ]  # fmt: skip
    lab = Folder(tmp_path / "lab")
    (lab.root / "conf/lab.yaml").write_text((lab.root / "conf/lab.yaml").read_text() + "offline: true\n")
    for f in found:
        lab.declare(f.name.replace("-", "_"), **f.block)
    before = hashes(machine)
    text = lab.ok("import", "--all")
    assert "4 adopted" in text
    assert "No changes" in lab.ok("plan")
    assert not list(lab.store.glob("blobs/sha256/*/*"))
    stats = lab.json("models", "stats")
    assert stats["physical"] == 0
    assert stats["foreign"] == stats["logical"] > 0
    listed = {e["name"]: e["format"] for e in lab.json("models")}
    assert listed == {"tiny": "safetensors", "gem_2b": "gguf", "phi_4bit": "mlx", "phi_Q8_0": "gguf"}
    assert "as laid out" in lab.ok("models", "check")
    for file in (lab.root / "conf/model").iterdir():
        file.unlink()
    lab.ok("apply", "--yes", "--allow-destroy")
    lab.ok("gc", "--yes")
    assert hashes(machine) == before


def test_applying_instead_of_importing_copies_nothing_either(machine: Path, tmp_path: Path) -> None:
    lab = Folder(tmp_path / "lab")
    for f in scan(machine):
        lab.declare(f.name.replace("-", "_"), **f.block)
    lab.ok("apply", "--yes")
    assert not list(lab.store.glob("blobs/sha256/*/*"))


def test_what_is_not_on_the_machine_is_not_fetched_by_import(machine: Path, tmp_path: Path) -> None:
    lab = Folder(tmp_path / "lab")
    lab.declare("other", hub="org/other")
    lab.declare("url", url="https://192.0.2.1/x.gguf", sha256="0" * 64)
    for name in ("other", "url"):
        code, text = lab.run("import", f"model.{name}")
        assert code == 1
        assert "not on this machine" in text


def test_an_adopted_file_that_its_tool_removes_is_drift_and_one_it_changes_is_named(
    machine: Path, tmp_path: Path
) -> None:
    lab = Folder(tmp_path / "lab")
    (found,) = [f for f in scan(machine) if f.name == "phi-Q8_0"]
    lab.declare("phi", **found.block)
    lab.ok("import", "model.phi")
    file = Path(str(found.block["path"]).replace("~", str(machine)))
    data = file.read_bytes()
    file.write_bytes(data[:-1] + b"X")
    os.utime(file, (1, 1))
    assert "phi-Q8_0.gguf" in lab.run("drift")[1]
    file.unlink()
    assert "phi-Q8_0.gguf" in lab.run("drift")[1]
