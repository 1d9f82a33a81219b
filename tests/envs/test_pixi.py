"""The exported `pixi.toml`: valid by pixi's own schema, and solved by the solver pixi uses into what was locked."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lab.adapters import conda, uv
from lab.app import env as verbs
from lab.app.lab import Lab
from lab.app.lock import lock
from lab.core.problem import Problems
from tests.envs.stands import SHORT
from tests.envs.test_kind import lab_at

SCHEMAS = (
    "validate-pyproject-schema-store==2026.10.23"
    " --hash=sha256:9509eb1488915a5f902b6cf5f352c489574fcd3e6750dc91dcda0e9028e12bb6"
)
ENV = f"""channels: [./channel]
python: "{SHORT}"
conda: [labhello ==1.1.0, labprefix]
on: {{osx-arm64: {{conda: [labmetal]}}}}
platforms: [osx-arm64, linux-64]
"""
NAMED = {"macos": "__osx", "linux": "__linux", "libc": "__glibc"}


@pytest.fixture
def exported(tmp_path: Path, built: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A `pixi.toml`, and the lock it was made from."""
    shutil.copytree(built, tmp_path / "channel")
    lock(lab_at(tmp_path, one=ENV))
    lab = Lab.find(tmp_path)
    found = lab.context("env.one").lock
    assert found is not None
    return tomllib.loads(verbs.export(lab, "one", "pixi")), dict(found)


@pytest.mark.slow
def test_it_is_valid_by_pixis_schema(exported: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    """Pixi's published schema accepts it, and would not accept anything else."""
    (tmp_path / "schemas.txt").write_text(SCHEMAS)
    rc, _, err = uv.call("pip", "install", "-q", "--python", sys.executable, "--target", str(tmp_path / "schemas"),
                         "--no-deps", "--require-hashes", "-r", str(tmp_path / "schemas.txt"))  # fmt: skip
    if rc:
        pytest.skip(f"pixi's schema cannot be had here: {err[-200:]}")
    schema = json.loads(next((tmp_path / "schemas").glob("*/resources/pixi.schema.json")).read_text())
    valid = jsonschema.validators.validator_for(schema)(schema)
    pixi, _ = exported
    assert [f"{list(e.path)}: {e.message}" for e in valid.iter_errors(pixi)] == []
    for spoiled in ({**pixi, "dependencies": {"python": 3}}, {**pixi, "system-requirements": {"__osx": "14.0"}}):
        assert list(valid.iter_errors(spoiled))


def test_it_is_solved_into_what_was_locked(exported: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    """rattler, which pixi solves with, finds the locked packages from it; not with pixi's own idea of a Mac."""
    pixi, locked = exported
    for platform in pixi["workspace"]["platforms"]:
        specs = {**pixi["dependencies"], **pixi["target"].get(platform, {}).get("dependencies", {})}
        said = {NAMED[k]: v["version"] if k == "libc" else v for k, v in pixi["system-requirements"].items()}
        mine = {k: v for k, v in said.items() if (k == "__osx") == platform.startswith("osx")}
        part = {"specs": [f"{name} {version}" for name, version in specs.items()], "virtual": mine}
        request = {
            "channels": pixi["workspace"]["channels"],
            "cache": str(tmp_path / "cache"),
            "platforms": {platform: part},
        }
        found = conda.ask("solve", request)[platform]
        assert {p["name"]: p["version"] for p in found} == locked["platforms"][platform]["packages"]
        if platform.startswith("osx"):
            part["virtual"] = {"__osx": "13.0"}
            with pytest.raises(Problems, match="no set of packages"):
                conda.ask("solve", request)
