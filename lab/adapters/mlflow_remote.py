"""MLflow's REST protocol, spoken with the standard library: a remote tracker is fed from the local store.

What was sent is noted in the run's folder, so that a server that is slow, gone or restarted gets every point once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from lab.adapters import http
from lab.adapters.mlflow_local import Unready, run_id
from lab.core.problem import Problems
from lab.runs.folder import RunFolder

BATCH = 1000
"""Most metrics MLflow takes in one request."""
_PARAMS, _TAGS = 100, 100


def feed(folder: RunFolder, db: Path, base: str) -> int:
    """The remote tracker at `base` has what the local store has of this run; returns how many points were sent.

    Raises Unready where it does not answer.
    """
    sent = folder.read("remote.json")
    if sent.get("uri") != base:
        sent = {"uri": base, "run": _find_or_make(folder, base), "row": 0}
        folder.write("remote.json", sent)
    key, count = str(sent["run"]), 0
    with contextlib.closing(sqlite3.connect(f"file:{db.absolute()}?mode=ro", uri=True, timeout=10)) as con:
        local = run_id(folder.id)
        while True:
            rows = con.execute(
                "SELECT rowid, key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND rowid > ?"
                " ORDER BY rowid LIMIT ?",
                (local, sent["row"], BATCH),
            ).fetchall()
            if not rows:
                break
            metrics = [
                {"key": k, "value": "NaN" if nan else v, "timestamp": at, "step": step}
                for _, k, v, at, step, nan in rows
            ]
            call(base, "runs/log-batch", {"run_id": key, "metrics": metrics})
            sent["row"] = rows[-1][0]
            count += len(rows)
            folder.write("remote.json", sent)
        ended = folder.result.get("ended")
        if not sent.get("begun") or (ended and sent.get("ended") != ended):
            _words(con, local, base, key)
            sent["begun"] = True
            if ended:
                status, end = con.execute("SELECT status, end_time FROM runs WHERE run_uuid = ?", (local,)).fetchone()
                call(base, "runs/update", {"run_id": key, "status": status, "end_time": end})
                sent["ended"] = ended
                _artifacts(folder, base, key)
            folder.write("remote.json", sent)
    return count


def _words(con: sqlite3.Connection, local: str, base: str, key: str) -> None:
    params = con.execute("SELECT key, value FROM params WHERE run_uuid = ?", (local,)).fetchall()
    tags = con.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (local,)).fetchall()
    for start in range(0, max(len(params), len(tags)), _PARAMS):
        part = {
            "params": [{"key": k, "value": v} for k, v in params[start : start + _PARAMS]],
            "tags": [{"key": k, "value": v} for k, v in tags[start : start + _TAGS]],
        }
        call(base, "runs/log-batch", {"run_id": key, **part})


def _find_or_make(folder: RunFolder, base: str) -> str:
    """The remote run of ours, found by its tag or made: a kill between the two makes no second one."""
    spec = folder.spec
    name = str(spec.get("tracker", {}).get("project") or spec.get("name") or "lab")
    experiment = _experiment(base, name)
    query = f"tags.`lab.run` = '{folder.id}'"
    found = call(base, "runs/search", {"experiment_ids": [experiment], "filter": query, "max_results": 1}).get("runs")
    if found:
        return str(found[0]["info"]["run_id"])
    body = {
        "experiment_id": experiment,
        "run_name": folder.id,
        "start_time": int(1000 * float(spec.get("at") or spec.get("started") or 0)),
        "tags": [{"key": "lab.run", "value": folder.id}],
    }
    return str(call(base, "runs/create", body)["run"]["info"]["run_id"])


def _experiment(base: str, name: str) -> str:
    with contextlib.suppress(Unready):
        found = call(base, f"experiments/get-by-name?{urllib.parse.urlencode({'experiment_name': name})}")
        return str(found["experiment"]["experiment_id"])
    return str(call(base, "experiments/create", {"name": name})["experiment_id"])


def _artifacts(folder: RunFolder, base: str, key: str) -> None:
    """The run's artifacts are uploaded, where the server takes files; where it does not, they stay here alone."""
    info = call(base, f"runs/get?{urllib.parse.urlencode({'run_id': key})}")["run"]["info"]
    scheme, _, place = str(info.get("artifact_uri", "")).partition(":/")
    if scheme != "mlflow-artifacts":
        return
    for path in sorted((folder / "artifacts").rglob("*")):
        if path.is_file():
            name = urllib.parse.quote(f"{place.strip('/')}/{path.relative_to(folder / 'artifacts').as_posix()}")
            with open(path, "rb") as body:
                url = f"{base.rstrip('/')}/api/2.0/mlflow-artifacts/artifacts/{name}"
                _open(urllib.request.Request(url, data=body, method="PUT", headers={
                    "Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size),
                }), 60)  # fmt: skip


def call(base: str, what: str, body: Any = None, timeout: float = 10) -> Any:
    """One call of MLflow's API; raises Unready with what the server said."""
    data = None if body is None else json.dumps(body).encode()
    url = f"{base.rstrip('/')}/api/2.0/mlflow/{what}"
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    return json.loads(_open(request, timeout) or b"{}")


def _open(request: urllib.request.Request, timeout: float) -> bytes:
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{n}") for n in ("USERNAME", "PASSWORD"))
    if user:
        import base64

        pair = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        proxies = urllib.request.ProxyHandler({} if http.loopback(request.full_url) else None)
        opener = urllib.request.build_opener(proxies, http.Redirect(False))
        with opener.open(request, timeout=timeout) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as e:
        raise Unready(f"the tracker answered {e.code}: {e.read(300).decode(errors='replace')}") from e
    except Problems as e:
        raise Unready(e.problems[0].summary) from e
    except (OSError, ValueError) as e:
        raise Unready(f"the tracker does not answer: {getattr(e, 'reason', e)}") from e
