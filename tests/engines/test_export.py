"""An archive of `lab models export` is all a model needs: unpacked in an empty folder it is whole and it generates.

Proves S2-3.6-4.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.adapters import loading
from tests.models.conflab import Folder


def _text(folder: Path) -> str:
    with loading.load(folder) as model:
        return "".join(p.text for p in model.generate("The class statement", tokens=12))


@pytest.mark.parametrize(
    ("name", "weights", "says"),
    [
        ("model.tiny", "model.safetensors", ["- format: safetensors", "- parameters: 1,283,328", "- licence: mit"]),
        ("quantization.tiny_q4", "tiny-Q4_K_M.gguf", ["- format: gguf", "- made of: model.tiny", "- licence: mit"]),
    ],
)
def test_an_archive_unpacks_in_an_empty_folder_and_generates(
    name: str, weights: str, says: list[str], tmp_path: Path, tiny: Path
) -> None:
    assert shutil.which("zstd"), "this machine's packages include zstd"
    lab = Folder(tmp_path / "lab")
    lab.declare("tiny", path=str(tiny), place="copy", license="mit", description="A model of random weights.")
    lab.declare("tiny_q4", "quantization", of="tiny", format="gguf", type="Q4_K_M")
    lab.ok("apply", "--yes", "--only", name)
    view = next((lab.store / "models/tiny").glob("original" if name == "model.tiny" else "tiny_q4"))
    before = _text(view)
    assert "with a card and SHA256SUMS" in lab.ok("models", "export", name, str(tmp_path / "m.tar.zst"))
    shutil.rmtree(lab.root)
    empty = tmp_path / "empty"
    empty.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", str(tmp_path / "m.tar.zst"), "-C", str(empty)], check=True)
    (out,) = empty.iterdir()
    assert (out / weights).is_file()
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=out, check=True)
    summed = {line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    assert summed | {"SHA256SUMS"} == {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    card = (out / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# {name.partition('.')[2]}\n")
    assert not [line for line in says if line not in card]
    assert _text(out) == before != ""
    # Another lab takes it as it is: the same bytes, the same hash.
    other = Folder(tmp_path / "other")
    other.declare("again", path=str(out), place="copy")
    other.ok("apply", "--yes")
    assert _text(other.store / "models/again/original") == before


@pytest.mark.parametrize(("ends", "why"), [("exit 3", "status 3"), ("kill -9 $$", "SIGKILL")])
def test_a_zstd_that_ends_early_is_told_and_nothing_is_left(
    ends: str, why: str, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Folder(tmp_path / "lab")
    lab.declare("tiny", path=str(tiny))
    lab.ok("apply", "--yes")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/zstd").write_text(f"#!/bin/sh\n{ends}\n")
    (tmp_path / "bin/zstd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    code, text = lab.run("models", "export", "tiny", str(tmp_path / "m.tar.zst"))
    assert (code, "zstd failed" in text, why in text) == (1, True, True), text
    assert not [p for p in tmp_path.iterdir() if "m.tar" in p.name]


def test_without_zstd_an_archive_that_says_zst_is_refused(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Folder(tmp_path / "lab")
    lab.declare("tiny", path=str(tiny))
    lab.ok("apply", "--yes")
    monkeypatch.setenv("PATH", str(tmp_path))
    code, text = lab.run("models", "export", "tiny", str(tmp_path / "m.tar.zst"))
    assert (code, "name the archive m.tar.gz" in text) == (1, True)
    assert not list(tmp_path.glob("*m.tar*"))
    lab.ok("models", "export", "tiny", str(tmp_path))
    assert (tmp_path / "tiny.tar.gz").is_file()
