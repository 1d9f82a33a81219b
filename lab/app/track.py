"""track: the tracking store, its server, and what waits to be shipped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.adapters import mlflow_local, mlflow_server, registry, spool
from lab.app.lab import Lab
from lab.app.runs import sync
from lab.runs.run import runs

__all__ = ["Tracking", "models", "serve", "stop", "sync", "track"]


@dataclass(frozen=True)
class Tracking:
    """How tracking stands."""

    store: str
    remote: str
    server: str
    """Its address; empty where none runs."""
    runs: int
    waiting: tuple[str, ...]
    """Runs with something that is not in the store yet."""


def track(lab: Lab) -> Tracking:
    """How tracking stands."""
    tracking: Any = (lab.head.get("lab") or {}).get("tracking") or {}
    every = [r for r in runs(lab.state) if r.spec]
    server = mlflow_server.running(lab.state)
    return Tracking(
        mlflow_local.uri(mlflow_local.database(lab.state)),
        str(tracking.get("uri", "")),
        str(server["url"]) if server else "",
        len(every),
        tuple(r.id for r in every if spool.pending(r)),
    )


def models(lab: Lab, name: str = "") -> list[dict[str, Any]]:
    """The registered versions of models that runs made, newest first; of one name or of all."""
    return registry.versions(mlflow_local.database(lab.state), name)


def serve(lab: Lab, host: str = "127.0.0.1", port: int = 5000) -> str:
    """MLflow's server runs; its address."""
    return str(mlflow_server.serve(lab.state, host, port)["url"])


def stop(lab: Lab) -> bool:
    """MLflow's server does not run; whether it did."""
    return mlflow_server.stop(lab.state)
