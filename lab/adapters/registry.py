"""Registry: what a run made becomes a version in MLflow's model registry, with its lineage; once per content."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.adapters import experiments, mlflow_local, spool
from lab.core import registering
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_runs import Register
from lab.runs.folder import RunFolder

STAGE, APPROVED = "stage", "approved"
"""Tags of a version: where it stands, and who let it go to production."""


def registered(folder: RunFolder) -> None:
    """The declared output of a finished run is a version of the declared name, and its aliases point to it."""
    rule = folder.spec.get("register") or {}
    if folder.result.get("state") == "finished" and rule:
        _registered(folder, rule)


def declared(step: Register, stage: Stage) -> None:
    """The registry says of the run in force what is declared; raises Problems where that was not approved."""
    folder = RunFolder(stage.state / "runs" / str(experiments.pointer(stage.state, step.name).get("run", "")))
    db = mlflow_local.database(stage.state)
    rule, before = step.rule, step.before
    if not rule or (before and before["name"] != rule["name"]):
        _dropped(db, before, before["aliases"])
        if not rule:
            return
        before = {}
    made = _made(folder, rule)
    approval = rule["approved"] if rule["stage"] == "production" else None
    if rule["stage"] == "production" and (approval or {}).get("digest") != made["sha256"]:
        raise problem(
            f"{rule['name']} made by {folder.id} is not what was approved for production, and does not go there",
            why=f"its content is {made['sha256']}, approved is {(approval or {}).get('digest', 'none')}",
            do=f"review it (`lab registry show {rule['name']}`) and commit that digest, or declare `stage: staging`",
        )
    known = observe(stage.state, rule["name"], made["sha256"])
    if known is None or registering.seen(rule, known) != registering.facts(rule):
        _staged(open_(db), rule, _registered(folder, rule), registering.signed(approval))
    _dropped(db, before, set(before.get("aliases", ())) - set(rule["aliases"]), stage=False)


def observe(state: str | Path, name: str, sha256: str) -> dict[str, Any] | None:
    """The version with this content: number, aliases, stage and who approved it; None where there is none. Reads."""
    for one in versions(mlflow_local.database(Path(state)), name):
        if one["sha256"] == sha256:
            return {k: one[k] for k in ("version", "aliases", "stage", "approved")}
    return None


def open_(db: Path) -> Any:
    """MLflow's own client of the local store; a Problem where MLflow is not installed."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        from mlflow import MlflowClient
    except ImportError as e:
        raise problem("MLflow is not installed", do="install it: pip install 'llm-lab[track]'") from e
    address = mlflow_local.uri(db)
    return MlflowClient(address, registry_uri=address)


def versions(db: Path, name: str = "") -> list[dict[str, Any]]:
    """Every registered version, newest first: name, version, aliases, stage, run, metrics, bytes, sha256. Reads.

    Read from the store's tables: listing needs no MLflow. A stage counts while its alias points to the version.
    """
    if not db.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{db.absolute()}?mode=ro", uri=True, timeout=5)) as con:
        rows = con.execute(
            "SELECT name, version, source, creation_time FROM model_versions"
            " WHERE current_stage != 'Deleted_Internal' ORDER BY name, version DESC"
        ).fetchall()
        out = []
        for model, version, source, made in rows:
            if name and model != name:
                continue
            key = (model, version)
            tags = dict(con.execute("SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", key))
            names = con.execute("SELECT alias FROM registered_model_aliases WHERE name = ? AND version = ?", key)
            metrics = {k.removeprefix("metric."): float(v) for k, v in tags.items() if k.startswith("metric.")}
            given = {k: v for k, v in tags.items() if k.startswith(("datasets.", "models."))}
            aliases = sorted(a for (a,) in names)
            stage = tags.get(STAGE, "")
            out.append({
                "name": model, "version": version, "aliases": aliases,
                "stage": stage if stage == "archived" or stage in aliases else "",
                "approved": tags.get(APPROVED, "") if stage == "production" and stage in aliases else "",
                "run": tags.get("lab.run", ""),
                "metrics": metrics, "bytes": int(tags.get("bytes", 0)), "sha256": tags.get("sha256", ""),
                "made_from": given, "source": source, "at": (made or 0) / 1000,
            })  # fmt: skip
        return out


def _registered(folder: RunFolder, rule: Mapping[str, Any]) -> str:
    """The version that is this run's output, made if need be; its aliases point to it."""
    made = _made(folder, rule)
    db = Path(str(folder.spec["tracker"]["db"]))
    spool.ship(folder, db)
    client = open_(db)
    name = str(rule["name"])
    version = _version(client, name, folder, made)
    for key, value in _lineage(folder, made).items():
        client.set_model_version_tag(name, version, key, value)
    for alias in rule["aliases"]:
        client.set_registered_model_alias(name, alias, version)
    folder.write("registered.json", {"name": name, "version": version})
    return version


def _made(folder: RunFolder, rule: Mapping[str, Any]) -> dict[str, Any]:
    outputs = folder.result.get("outputs") or {}
    if rule["output"] not in outputs:
        why = f"it has {', '.join(outputs) or 'none'}"
        raise problem(f"{folder.id} has no output {rule['output']!r} to register", why=why)
    found: dict[str, Any] = outputs[rule["output"]]
    return found


def _staged(client: Any, rule: Mapping[str, Any], version: str, approved: str) -> None:
    """The version stands in its stage, alone; what stood in production before it is archived."""
    name, stage = rule["name"], rule["stage"]
    aliases = dict(client.get_registered_model(name).aliases)
    for other in ("development", "staging", "production"):
        if other != stage and str(aliases.get(other, "")) == version and other not in rule["aliases"]:
            client.delete_registered_model_alias(name, other)
    if stage not in ("", "archived"):
        held = str(aliases.get(stage, ""))
        if held and held != version:
            client.set_model_version_tag(name, held, STAGE, "archived" if stage == "production" else "")
        client.set_registered_model_alias(name, stage, version)
    client.set_model_version_tag(name, version, STAGE, stage)
    client.set_model_version_tag(name, version, APPROVED, approved)


def _dropped(db: Path, before: Mapping[str, Any], aliases: Any, *, stage: bool = True) -> None:
    """What is no longer declared is no longer said: aliases, and with `stage` the stage's own."""
    gone = {
        *aliases,
        *((before["stage"],) if stage and before.get("stage") in ("development", "staging", "production") else ()),
    }
    known = {a for v in versions(db, before["name"]) for a in v["aliases"]} if gone else set()
    for alias in sorted(gone & known):
        open_(db).delete_registered_model_alias(before["name"], alias)


def _version(client: Any, name: str, folder: RunFolder, made: dict[str, Any]) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as e:
        if e.error_code != "RESOURCE_ALREADY_EXISTS":
            raise problem(f"the model {name} cannot be registered", why=str(e.message)) from e
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.tags.get("sha256") == made["sha256"]:
            return str(known.version)
    new = client.create_model_version(
        name,
        Path(str(made["path"])).absolute().as_uri(),
        run_id=mlflow_local.run_id(folder.id),
        tags={"sha256": made["sha256"]},
    )
    return str(new.version)


def _lineage(folder: RunFolder, made: dict[str, Any]) -> dict[str, str]:
    inputs = folder.read("inputs.json")
    found = {"lab.run": folder.id, "lab.digest": str(folder.spec.get("digest", "")), "bytes": str(made["bytes"])}
    for kind in ("datasets", "models"):
        for name, one in (inputs.get(kind) or {}).items():
            found[f"{kind}.{name}"] = f"{one.get('address', '')} {one.get('digest', '')}".strip()
    found |= {f"metric.{n}": repr(v) for n, v in (folder.result.get("metrics") or {}).items()}
    return found
