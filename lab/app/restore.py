"""restore: what a snapshot holds, back in its place or beside it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.app import _places, _snapshot
from lab.app import backup as backups
from lab.app._snapshot import Restored
from lab.app.lab import Lab
from lab.core import stages
from lab.core.problem import Problems, problem
from lab.ledger.sqlite import File


def restore(
    lab: Lab, addresses: Sequence[str] = (), *, at: str = "", to: Path | None = None, name: str = "", repo: str = ""
) -> dict[str, Any]:
    """A snapshot's files are in their places again, or below `to`; with addresses only what belongs to those.

    `at` is a snapshot's id or a time (`2026-11-20`, `2026-11-20T18:30`): the last snapshot before its end is taken.
    Files that the snapshot does not hold stay. Says `{snapshot, at, files, fetch, ledger}`; `fetch` names what is not
    in the snapshot because it can be fetched or made again from its lock: `lab apply` does. A ledger on a server is
    other machines' too and stays as it is: the snapshot's copy of it lies at `ledger`, for `lab state restore`.
    """
    name, applied = backups.settings(lab, name)
    found = [r for r in backups.repositories(applied) if not repo or r.repo == repo]
    scratch = lab.state / "backup" / f"restoring-{name}"
    problems: list[Any] = []
    for repository in found:
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            restored = _snapshot.fetch(name, repository, scratch, at)
            return _place(lab, restored, addresses, to)
        except Problems as e:
            problems += e.problems
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    raise Problems(*problems) if problems else problem(f"{repo} is no repository of {name}", do="see `lab backup list`")


def _place(lab: Lab, restored: Restored, addresses: Sequence[str], to: Path | None) -> dict[str, Any]:
    chosen = [p for p in restored.pairs if not addresses or _belongs(restored, p, addresses)]
    if addresses and not chosen:
        raise problem(
            f"the snapshot holds nothing of {', '.join(addresses)}",
            why=f"it is {restored.snapshot}",
            do="try another `--at`",
        )
    old = restored.manifest["places"] if "places" in restored.manifest else {"root": restored.manifest["root"]}
    moved = _places.Moved.between(old, {**_here(lab), "home": old.get("home", "")})
    kept = lab.state / "backup" / "ledger-of-snapshot.sqlite"
    ledger = str(lab.state / "ledger.sqlite")
    apart = next((p for p in chosen if moved.path(p) == ledger), "") if to is None and _served(lab) else ""

    def target(path: str) -> Path:
        if path == apart:
            return kept
        if to is None:
            return Path(moved.path(path))
        inside = Path(path).is_relative_to(old["root"])
        return to / (Path(path).relative_to(old["root"]) if inside else path.lstrip("/"))

    _snapshot.place(restored, chosen, target, moved if to is None else _places.Moved({}))
    left = {v["address"] for v in restored.manifest["left"].values()} | set(restored.manifest.get("again", ()))
    return {
        "snapshot": restored.snapshot,
        "at": restored.manifest["at"],
        "files": len(chosen),
        "fetch": sorted(left) if not addresses else [],
        "ledger": str(kept) if apart else "",
    }


def _served(lab: Lab) -> bool:
    """Whether the ledger is on a server."""
    try:
        return not isinstance(lab.kept, File)
    except Problems:  # broken declarations are what is being restored
        return False


def _here(lab: Lab) -> dict[str, str]:
    try:
        return _places.of(lab)
    except Problems:  # broken declarations are what is being restored
        return {"root": str(lab.root), "state": str(lab.state)}


def _belongs(restored: Restored, path: str, addresses: Sequence[str]) -> bool:
    root, state = restored.manifest["root"], restored.manifest["state"]
    stage = restored.manifest["lab"].partition("@")[2]
    locks = stages.locks(root, stage)
    for address in addresses:
        kind, _, name = address.partition(".")
        if not name:
            tops = [
                f"{root}/{kind}"
                if kind in ("conf", "docs", "recipes")
                else state
                if kind == "state"
                else f"{root}/conf/{kind}"
            ]
        else:
            facts = restored.manifest["resources"].get(address, {}).get("facts", {})
            tops = [str(facts[k]) for k in ("path", "prefix", "folder") if str(facts.get(k, "")).startswith("/")]
            tops += [f"{root}/conf/{kind}/{name}.yaml", *(f"{d}/{kind}/{name}.yaml" for d in locks)]
            tops += [
                f"{state}/runs/{name}",
                f"{state}/runs/{address}",
                f"{state}/{kind}/{name}",
                f"{state}/sweeps/{name}",
            ]
        if any(path == t or path.startswith(t.rstrip("/") + "/") for t in tops):
            return True
    return False
