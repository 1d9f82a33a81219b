"""Bundle: runs as one zip archive that another lab takes in: everything in their folders, with what the places meant.

lab-runs.json    format, and where the lab, its store, its Python and Lab itself were
runs/RUN/…       the folders; nothing that only a living run needs
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lab.core.problem import problem
from lab.runs.folder import ENDED, RunFolder

FORMAT = "lab.runs/1"
MANIFEST = "lab-runs.json"
_LOCAL = {"lease", "ship.lock", "shipped.json", "remote.json", "wandb.json", "supervisor.log", "tracking.log"}
"""What belongs to this machine and its tracker, or to a living run."""
_PATHS = ("spec.json", "inputs.json", "result.json")


def pack(folders: Sequence[RunFolder], target: Path, places: Mapping[str, str]) -> int:
    """`target` is an archive of the runs; returns how many files it holds. Raises Problems for a run that lives.

    `places`: names of this lab's folders (`root`, `store`, …) → their paths, to be translated where it is taken in.
    """
    for one in folders:
        if (state := one.state()) not in ENDED:
            raise problem(f"{one.id} cannot be exported yet", why=f"it is {state}", do="wait for its end, or stop it")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.lab-tmp")
    count = 0
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            archive.writestr(MANIFEST, json.dumps({"format": FORMAT, "places": dict(places)}, indent=1))
            for one in folders:
                for path in sorted(one.path.rglob("*")):
                    name = path.relative_to(one.path)
                    if path.is_file() and name.parts[0] not in _LOCAL and not path.name.endswith(".lab-tmp"):
                        archive.write(path, f"runs/{one.id}/{name.as_posix()}")
                        count += 1
        os.replace(temporary, target)
    except OSError as e:
        raise problem(f"{target} cannot be written", why=e.strerror or str(e)) from e
    finally:
        temporary.unlink(missing_ok=True)
    return count


def unpack(archive: Path, state: Path, places: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The archive's runs are under `state/runs/`: which came, and which were there already, the same.

    All or none: a damaged archive, a path that leads out of it, or another run of the same name is a problem.
    """
    fresh = state / f"import-{os.getpid()}.lab-tmp"
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
            manifest = json.loads(opened.read(MANIFEST)) if MANIFEST in names else {}
            if manifest.get("format") != FORMAT:
                raise problem(f"{archive} is no bundle of runs", do="make one with `lab runs export RUN --to FILE.zip`")
            for info in opened.infolist():
                parts = PurePosixPath(info.filename).parts
                inside = len(parts) > 2 and parts[0] == "runs" and ".." not in parts and not parts[0].startswith("/")
                if info.filename != MANIFEST and (not inside or stat.S_ISLNK(info.external_attr >> 16)):
                    raise problem(f"{archive} is refused", why=f"{info.filename!r} would lie outside its run's folder")
            if broken := opened.testzip():
                raise problem(f"{archive} is damaged", why=f"{broken} is not what its checksum says")
            opened.extractall(fresh, [n for n in names if n != MANIFEST])
        found = sorted((fresh / "runs").iterdir()) if (fresh / "runs").is_dir() else []
        moved = {str(old): places[n] for n, old in (manifest.get("places") or {}).items() if places.get(n)}
        came, known = list[str](), list[str]()
        for one in found:
            for file in _PATHS:
                if (one / file).is_file():
                    (one / file).write_text(translated((one / file).read_text(encoding="utf-8"), moved))
            there = RunFolder(state / "runs" / one.name)
            if there.path.exists() and there.result != RunFolder(one).result:
                raise problem(
                    f"another run is called {one.name} here",
                    why="its result is not the one in the archive",
                    do="move that folder away, then import again",
                )
            (known if there.path.exists() else came).append(one.name)
        (state / "runs").mkdir(parents=True, exist_ok=True)
        for name in came:
            os.replace(fresh / "runs" / name, state / "runs" / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError, AttributeError, RuntimeError) as e:
        raise problem(f"{archive} is damaged, or no zip archive", why=str(e)) from e
    except OSError as e:
        raise problem(f"{archive} cannot be taken in", why=e.strerror or str(e)) from e
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return came, known


def translated(text: str, moved: Mapping[str, str]) -> str:
    """`text` with every path at or below a moved one replaced, in one pass. Pure."""
    if not moved:
        return text
    old = "|".join(re.escape(p) for p in sorted(moved, key=len, reverse=True))
    return re.sub(rf"(?:{old})(?![\w.-])", lambda m: moved[m[0]], text)


def points(folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """Every logged value of the runs, a row each: run, metric, step, milliseconds, value. Reads."""
    return [
        {"run": one.id, "metric": name, "step": step, "at": at, "value": value}
        for one in folders
        for step, at, values in one.metrics()
        for name, value in values.items()
    ]
