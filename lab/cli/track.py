"""track: experiment tracking on MLflow: how it stands, its server, what waits.

lab track               the store, the server, what is not shipped yet
lab track serve         MLflow's own pages at http://127.0.0.1:5000, lean; `lab track stop` ends them
lab track sync          ships what waits, once
lab track models        the models that runs registered, in short; `lab registry show NAME` is a card
"""

from __future__ import annotations

import argparse

from lab.app import track
from lab.app.lab import Lab
from lab.core.units import size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab track`."""
    parser.add_argument("verb", nargs="?", choices=("status", "serve", "stop", "sync", "models"), default="status")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Does it, and says how it stands."""
    if args.verb == "serve":
        print(f"MLflow is at {track.serve(lab, args.host, args.port)}. End it with `lab track stop`.")
    elif args.verb == "stop":
        print("MLflow's server is stopped." if track.stop(lab) else "No server of this lab runs.")
    elif args.verb == "models":
        for one in track.models(lab):
            print(f"{one['name']}@{one['version']} {' '.join(one['aliases'])}".rstrip())
            facts = {"run": one["run"], "size": size(one["bytes"]), "sha256": one["sha256"], **one["made_from"]}
            facts |= {n: f"{v:.6g}" for n, v in one["metrics"].items()}
            print("\n".join(f"    {k}  {v}" for k, v in facts.items() if v))
    elif args.verb == "sync":
        runs, points = track.sync(lab)
        print(f"{runs} runs and {points} points shipped." if runs else "Nothing waits.")
    else:
        found = track.track(lab)
        print(f"store   {found.store}")
        if found.remote:
            print(f"remote  {found.remote}")
        print(f"server  {found.server or 'not running: `lab track serve`'}")
        print(
            f"runs    {found.runs}, {len(found.waiting)} with something to ship"
            + (": `lab track sync`" * bool(found.waiting))
        )
    return 0
