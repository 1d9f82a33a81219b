"""An external solver: conda, mamba or micromamba, asked for a dry run in the way conda-lock asks them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

from lab.core.problem import problem

NAMES = ("micromamba", "mamba", "conda")
_OVERRIDES = {"__osx": "CONDA_OVERRIDE_OSX", "__glibc": "CONDA_OVERRIDE_GLIBC", "__cuda": "CONDA_OVERRIDE_CUDA",
              "__linux": "CONDA_OVERRIDE_LINUX", "__archspec": "CONDA_OVERRIDE_ARCHSPEC"}  # fmt: skip


def find() -> str:
    """The solver: LAB_CONDA, else the first of micromamba, mamba and conda on PATH; a problem where there is none."""
    found = os.environ.get("LAB_CONDA") or next((p for n in NAMES if (p := shutil.which(n))), "")
    if not found:
        raise problem(
            "there is no external solver",
            why=f"none of {', '.join(NAMES)} is on PATH",
            do="install one, name it in LAB_CONDA, or leave `solver: rattler`",
        )
    return found


def command(solver: str, channels: list[str], specs: list[str], prefix: str) -> list[str]:
    """The dry run of a solver. Pure."""
    out = [solver, "create", "--prefix", prefix, "--dry-run", "--json", "--override-channels"]
    for channel in channels:
        out += ["--channel", channel]
    return [*out, *specs]


def environment(platform: str, virtual: Mapping[str, str]) -> dict[str, str]:
    """What makes a solver solve for another platform, with its virtual packages. Pure."""
    told = {_OVERRIDES[k]: str(v).rpartition(" ")[2] for k, v in virtual.items() if k in _OVERRIDES}
    # conda would add pip wherever there is a Python.
    return {"CONDA_SUBDIR": platform, "CONDA_ADD_PIP_AS_PYTHON_DEPENDENCY": "False", **told}


def solve(request: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Solved records per platform, as `conda_child.solve` answers them; locked versions are asked for again first."""
    solver = find()
    out = {}
    for platform, part in request["platforms"].items():
        with tempfile.TemporaryDirectory() as folder:
            env = {**os.environ, **environment(platform, part["virtual"]), "CONDA_PKGS_DIRS": f"{folder}/pkgs"}
            done = subprocess.run(
                command(solver, request["channels"], part["specs"], f"{folder}/prefix"),
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
        out[platform] = _read(done.stdout, done.stderr, platform)
    return out


def _read(text: str, err: str, platform: str) -> list[dict[str, Any]]:
    try:
        said = json.loads(text)
    except ValueError:
        said = {"success": False, "message": (err or text).strip()[-500:]}
    if not said.get("success", True) or "actions" not in said:
        why = said.get("message") or "; ".join(map(str, said.get("solver_problems", ()))) or str(said.get("error", ""))
        raise problem(f"no set of packages answers the spec on {platform}", why=str(why), do="loosen a condition named")
    fetched = {r["name"]: r for r in said["actions"].get("FETCH", ())}
    return [
        {
            "name": r["name"],
            "version": r["version"],
            "build": r.get("build_string") or r.get("build", ""),
            "url": r["url"],
            "md5": r.get("md5"),
            "sha256": r.get("sha256"),
            "size": r.get("size"),
            "depends": list(r.get("depends", ())),
        }
        for r in ({**link, **fetched.get(link["name"], {})} for link in said["actions"]["LINK"])
    ]
