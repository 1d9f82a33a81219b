"""Registry: what a run made becomes a version in MLflow's model registry, with its lineage; once per content."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

from lab.adapters import mlflow_local, spool
from lab.core.problem import problem
from lab.runs.folder import RunFolder


def registered(folder: RunFolder) -> None:
    """The declared output of a finished run is a version of the declared name, and its aliases point to it."""
    rule = folder.spec.get("register") or {}
    if folder.result.get("state") != "finished" or not rule:
        return
    outputs = folder.result.get("outputs") or {}
    output = str(rule.get("output") or next(iter(outputs), ""))
    if output not in outputs:
        raise problem(f"{folder.id} has no output {output!r} to register", why=f"it has {', '.join(outputs) or 'none'}")
    db = Path(str(folder.spec["tracker"]["db"]))
    spool.ship(folder, db)
    client = open_(db)
    name = str(rule.get("name") or folder.spec["name"])
    made = outputs[output]
    version = _version(client, name, folder, made)
    for key, value in _lineage(folder, made).items():
        client.set_model_version_tag(name, version, key, value)
    for alias in rule.get("aliases") or ():
        if str(alias) != "latest":
            client.set_registered_model_alias(name, str(alias), version)
    folder.write("registered.json", {"name": name, "version": version})


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
    """Every registered version, newest first: name, version, aliases, run, metrics, bytes, sha256. Reads.

    Read from the store's tables: listing needs no MLflow.
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
            out.append({
                "name": model, "version": version, "aliases": sorted(a for (a,) in names),
                "run": tags.get("lab.run", ""),
                "metrics": metrics, "bytes": int(tags.get("bytes", 0)), "sha256": tags.get("sha256", ""),
                "made_from": given, "source": source, "at": (made or 0) / 1000,
            })  # fmt: skip
        return out


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
