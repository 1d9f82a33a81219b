"""init: a new lab in an empty folder, committed to git and plannable at once."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.core.address import is_name
from lab.core.problem import did_you_mean, problem
from lab.declare import shipped

STARTER = "starter"
PERSONAS = ("researcher", "app-developer", "host-guests")


@dataclass(frozen=True)
class Made:
    """A lab that was made: where, from which recipe, its files, and the commit that holds them."""

    root: Path
    recipe: str
    files: tuple[str, ...]
    commit: str
    found: Mapping[str, str] = field(default_factory=dict)
    """What was found on the machine: address → where, and what becomes of it."""
    notes: tuple[str, ...] = ()
    """What was found and could not be declared, and why."""


def recipes() -> list[str]:
    """The whole-lab recipes that came with Lab. Reads."""
    return shipped.names("recipes/lab")


def init(
    folder: Path,
    *,
    recipe: str = "",
    persona: str = "",
    profile: str = "",
    name: str = "",
    from_machine: bool = False,
    home: Path | None = None,
) -> Made:
    """A lab stands in `folder`, made from a recipe, in one commit; raises Problems and leaves nothing where it cannot.

    With `from_machine`, what `home` already holds (models of other tools, conda environments) is declared as well.
    """
    root = folder.absolute()
    source, chosen = _source(recipe, persona)
    _must_be_empty(root)
    label = name or re.sub(r"[^A-Za-z0-9_-]+", "-", root.name).strip("-") or "lab"
    if not is_name(label):
        raise problem(f"`{name}` is no name for a lab", do="use letters, digits, `_` and `-`")
    files = _files(source, label)
    if profile:
        _choose(files, profile)
    found: dict[str, str] = {}
    notes: list[str] = []
    if from_machine:
        from lab.app.machine_scan import declared

        blocks, notes = declared(home or Path.home())
        for address, text in blocks.items():
            kind, _, resource = address.partition(".")
            files[f"conf/{kind}/{resource}.yaml"] = text.encode()
            found[address] = next((n[2:] for n in text.splitlines()[1:] if n.startswith("# ")), "")
    _write(root, files)
    from lab.app.schema import write

    write(root)
    commit = _commit(root)
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and ".git/" not in f"{p}/")
    return Made(root, chosen, tuple(n for n in names if not n.startswith(".git/")), commit, found, tuple(notes))


def _source(recipe: str, persona: str) -> tuple[Path, str]:
    known = recipes()
    if persona and persona not in PERSONAS:
        hint = did_you_mean(persona, PERSONAS)
        raise problem(f"there is no persona `{persona}`{hint}", why=f"there are {', '.join(PERSONAS)}", do="choose one")
    if recipe and persona and recipe != persona:
        raise problem("a recipe and a persona were given", why="a persona is a recipe too", do="give one of them")
    chosen = recipe.removeprefix("lab/") or persona or STARTER  # `lab recipes` lists them with their folder
    if chosen not in known:
        why = f"there are {', '.join(known)}" if known else "no recipes came with this Lab"
        raise problem(
            f"there is no lab recipe `{chosen}`{did_you_mean(chosen, known)}", why=why, do="choose one of them"
        )
    found = shipped.find(f"recipes/lab/{chosen}")
    if found is None:
        raise problem(f"the recipe `{chosen}` cannot be read", do="install Lab anew")
    return found, chosen


def _must_be_empty(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise problem(f"{root} is a file", do="name a folder that is empty or does not exist")
    if root.is_dir():
        left = sorted(p.name for p in root.iterdir() if p.name not in (".git", ".DS_Store"))
        if left:
            shown = ", ".join(left[:3]) + (" …" if len(left) > 3 else "")
            raise problem(
                f"{root} is not empty", why=f"it holds {shown}", do="name a folder that is empty or does not exist"
            )
    git = root / ".git"
    if git.exists() and any((git / "refs/heads").rglob("*")):
        raise problem(f"{root} already has commits", do="name a folder that is empty or does not exist")


def _files(source: Path, label: str) -> dict[str, bytes]:
    """The recipe's files, with the lab's own name and a fresh id. Reads."""
    out = {}
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            data = path.read_bytes().replace(b"LAB_NAME", label.encode())
            name = path.relative_to(source).as_posix()
            out[".gitignore" if name == "gitignore" else name] = data.replace(b"LAB_ID", str(uuid.uuid4()).encode())
    return out


def _choose(files: dict[str, bytes], profile: str) -> None:
    known = [Path(n).stem for n in files if n.startswith("conf/profile/")]
    if profile not in known:
        hint = did_you_mean(profile, known)
        raise problem(f"the recipe has no profile `{profile}`{hint}", why=f"it has {', '.join(known)}", do="choose one")
    head = files["conf/lab.yaml"].decode()
    files["conf/lab.yaml"] = re.sub(r"(?m)^(\s*- profile:\s*)\S+", rf"\g<1>{profile}", head, count=1).encode()


def _write(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _commit(root: Path) -> str:
    """Everything in `root` is committed; returns the commit. The user's own git identity is used where there is one."""
    import git

    try:
        repository = git.Repo(root) if (root / ".git").exists() else git.Repo.init(root, initial_branch="main")
        repository.git.add("--all")
        who: Sequence[str] = ()
        reader: Any = repository.config_reader()
        if not reader.has_option("user", "email"):
            who = ("-c", "user.name=Lab", "-c", "user.email=lab@localhost")
        repository.git.execute(["git", *who, "commit", "--quiet", "--no-verify", "-m", "A new lab, made by `lab init`"])
        return str(repository.head.commit.hexsha)
    except (git.GitError, OSError) as e:
        said = str(getattr(e, "stderr", "") or e).strip().splitlines()
        raise problem(
            "the files are written, but git could not commit them",
            why=said[-1] if said else "",
            do=f"install git, then in {root}: git init && git add -A && git commit",
        ) from None
