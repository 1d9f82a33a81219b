"""rebuild: the same lab on an empty machine, from its repository, its locks and a backup, or from a bundle alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.adapters import git
from lab.adapters.bundle import Bundle, is_bundle
from lab.adapters.files import put
from lab.app import _takeover
from lab.app._attest import Attestation, attest
from lab.app.apply import Approve, Started, apply
from lab.app.lab import Lab
from lab.apply.events import Event, Tell, silent
from lab.apply.results import Outcome
from lab.core.problem import Problem, Problems, problem
from lab.ledger.stamp import read_stamp

MARK = "lab-rebuild.json"
"""Below `.git/`: from where this lab is being rebuilt, and what is done of it."""


@dataclass
class Progress:
    """A rebuild under way in a folder; what is done of it survives a kill."""

    root: Path
    source: str
    done: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self) -> None:
        """What is done is on disk."""
        value = {"from": self.source, "done": self.done, "facts": self.facts}
        put(self.root / ".git" / MARK, json.dumps(value, indent=1).encode())

    def step(self, name: str, act: Callable[[], None]) -> None:
        """`act` is done once, however often this is called."""
        if name not in self.done:
            act()
            self.done.append(name)
            self.save()


def rebuild(
    source: str,
    into: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    name: str = "",
    repo: str = "",
    at: str = "",
    without_backup: bool = False,
    tell: Tell = silent,
    approve: Approve = lambda plan: True,
    started: Started = lambda walk: None,
) -> tuple[Lab, Attestation] | None:
    """The lab of a repository or bundle stands in `into`, and every digest is compared; None where `approve` said no.

    Killed anywhere, the same call continues. `name` is the backup to take the state from, `repo` its repository and
    `at` the time; `without_backup` begins with an empty ledger. Raises Problems and touches nothing where `into` holds
    anything that this rebuild did not put there.
    """
    bundle = Bundle(Path(source).expanduser().absolute()) if is_bundle(Path(source).expanduser()) else None
    source = str(bundle.path) if bundle else _address(source)
    root = (into or Path.cwd() / _named(source)).expanduser().absolute()
    with _own(root, source) as progress:
        if bundle:
            progress.step("verify", lambda: _verified(progress, bundle, tell))
            if progress.facts.get("bundle", bundle.sum) != bundle.sum:
                raise problem(
                    f"{source} is another bundle than the one {root} is being rebuilt from",
                    do="put that one back, or name another folder",
                )
        progress.step("clone", lambda: _clone(progress, bundle))
        given = tuple(overrides) or tuple(
            bundle.manifest["overrides"] if bundle else progress.facts.get("overrides", ())
        )
        lab = Lab(_inside(root, bundle), given, tell)
        progress.facts["overrides"] = list(given)
        if bundle:
            progress.step("state", lambda: _taken(progress, lab, lambda: _takeover.from_bundle(lab, bundle)))
        elif not without_backup:
            progress.step("state", lambda: _taken(progress, lab, lambda: _takeover.from_backup(lab, name, repo, at)))
        _locked(Lab(lab.root, lab.overrides, tell))
        applied = apply(Lab(lab.root, lab.overrides, tell), verb="rebuild", approve=approve, started=started)
        if applied is None:
            return None
        if applied.interrupted:
            tell(Event("say", "rebuild", text="interrupted: the same command goes on from here"))
            raise KeyboardInterrupt
        failed = {
            str(a): (r.problems[0].summary if r.problems else r.why)
            for a, r in applied.results.items()
            if r.outcome is not Outcome.DONE
        }
        taken = progress.facts.get("taken", {})
        found = attest(lab, taken.get("before", {}), failed, list(taken.get("notes", ())))
        _report(lab, progress, found)
        return lab, found


# --- whose folder it is ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _own(root: Path, source: str) -> Iterator[Progress]:
    """The folder is this rebuild's alone: empty before, or begun from the same source."""
    if root.exists() and not root.is_dir():
        raise problem(f"{root} is a file", do="name a folder that is empty or does not exist")
    mark = root / ".git" / MARK
    known: dict[str, Any] = {}
    if root.exists() and any(root.iterdir()):
        try:
            known = json.loads(mark.read_bytes())
        except (OSError, ValueError) as e:
            shown = ", ".join(sorted(p.name for p in root.iterdir())[:3])
            raise problem(
                f"{root} is not empty", why=f"it holds {shown}, and no rebuild began it", do="name an empty folder"
            ) from e
        if known.get("from") != source:
            raise problem(
                f"{root} is being rebuilt from {known.get('from')}",
                why=f"not from {source}",
                do="go on from there, or name another folder",
            )
    progress = Progress(root, source, known.get("done", []), known.get("facts", {}))
    if not known:
        progress.save()
    with open(mark.with_suffix(".lock"), "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise problem(f"another rebuild works in {root}", do="wait for it") from None
        yield progress


def _address(source: str) -> str:
    """A local repository by its full path, anything else as it was given."""
    here = Path(source).expanduser()
    if here.exists():
        return str(here.absolute())
    if "://" not in source and ":" not in source:
        raise problem(f"there is no repository {source}", why="no such folder or file", do="give a path or a git URL")
    return source


def _named(source: str) -> str:
    return Path(source.rstrip("/")).name.removesuffix(".git").removesuffix(".tar").removesuffix("-bundle") or "lab"


# --- steps -----------------------------------------------------------------------------------------------------------


def _verified(progress: Progress, bundle: Bundle, tell: Tell) -> None:
    bundle.verify(_takeover.counter(tell, bundle))
    progress.facts["bundle"] = bundle.sum


def _clone(progress: Progress, bundle: Bundle | None) -> None:
    there = sorted(p for p in progress.root.iterdir() if p.name != ".git")
    if there and "fetched" not in progress.facts:
        raise problem(
            f"{progress.root} holds {', '.join(p.name for p in there[:3])}",
            why="the rebuild that began there had not put anything in it yet",
            do="move that away, or name an empty folder",
        )
    for left in there:  # a clone that was cut short is begun anew
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    for left in (progress.root / ".git").iterdir():
        if not left.name.startswith("lab-rebuild"):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    source = progress.source
    if bundle:
        source = str(progress.root / ".git" / "lab-rebuild.bundle")
        bundle.copy("repository.bundle", Path(source))

    def fetched() -> None:
        progress.facts["fetched"] = True
        progress.save()

    progress.facts["commit"] = git.fetch(progress.root, source, fetched)
    if not bundle:
        git.remote(progress.root, source)
    else:
        Path(source).unlink()


def _taken(progress: Progress, lab: Lab, take: Callable[[], _takeover.Taken]) -> None:
    """What the lab had is taken over, and known for the attestation.

    Where a kill cut an earlier try short, its stamps may tell of a ledger that had come further than the one that is
    now put back in its place: they go first.
    """
    if progress.facts.get("taking"):
        for path in lab.stamps:
            if (seen := read_stamp(path)) and seen.ledger == lab.kept.shown:
                path.unlink()
    progress.facts["taking"] = True
    progress.save()
    progress.facts["taken"] = asdict(take())


def _inside(root: Path, bundle: Bundle | None) -> Path:
    """Where in the repository the lab is."""
    inside = root / (bundle.manifest.get("inside", ".") if bundle else ".")
    if (inside / "conf" / "lab.yaml").is_file():
        return inside
    found = [
        p.parents[1]
        for p in sorted(root.glob("*/conf/lab.yaml"))
        if p.relative_to(root).parts[0] not in ("recipes", "tests", "docs")
    ]
    if len(found) == 1:
        return found[0]
    raise problem(
        "the repository holds no lab" if not found else "the repository holds several labs",
        why="there is no conf/lab.yaml" if not found else ", ".join(p.name for p in found),
        do="give the repository of a lab",
    )


def _locked(lab: Lab) -> None:
    """What is declared is known by a lock, a hash, or what was recorded of it: else it could become another thing."""
    missing = []
    for address in lab.declarations:
        contents = lab.declared.inputs[address]["contents"]
        record = lab.records.get(address)
        if None in contents.values() and not (record and record.facts.get("files")):
            file, line = lab.place(address)
            missing.append(
                Problem(
                    f"{address} has no lock",
                    why="what it stands for today may differ from what the lab had",
                    do=f"in the lab that has it: `lab lock {address}`, then commit conf/lock/",
                    file=file,
                    line=line,
                )
            )
    if missing:
        raise Problems(*missing)


# --- telling ---------------------------------------------------------------------------------------------------------


def _report(lab: Lab, progress: Progress, found: Attestation) -> None:
    about = {
        "format": 1,
        "at": time.time(),
        "from": progress.source,
        "commit": progress.facts.get("commit", ""),
        "snapshot": {k: v for k, v in progress.facts.get("taken", {}).items() if k in ("snapshot", "at", "commit")},
        **found.to_json(),
    }
    put(lab.state / _takeover.REPORT, (json.dumps(about, indent=1) + "\n").encode())
