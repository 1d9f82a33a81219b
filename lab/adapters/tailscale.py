"""Tailscale: what it says of itself."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from lab.core.problem import Unknown


def preferences() -> dict[str, Any]:
    """`{hostname, tags, ssh, accept_routes, accept_dns, routes, running}` as in force; Unknown where nobody answers."""
    prefs = _ask("debug", "prefs")
    return {
        "hostname": prefs.get("Hostname") or "",
        "tags": sorted(prefs.get("AdvertiseTags") or []),
        "ssh": bool(prefs.get("RunSSH")),
        "accept_routes": bool(prefs.get("RouteAll")),
        "accept_dns": bool(prefs.get("CorpDNS")),
        "routes": sorted(prefs.get("AdvertiseRoutes") or []),
        "running": bool(prefs.get("WantRunning")),
    }


def state() -> dict[str, Any]:
    """`{state, name, online}`: `Running`, `Stopped`, `NeedsLogin`, and the MagicDNS name."""
    found = _ask("status", "--json")
    own = found.get("Self") or {}
    return {
        "state": str(found.get("BackendState", "")),
        "name": str(own.get("DNSName", "")).rstrip("."),
        "online": bool(own.get("Online", False)),
    }


def _ask(*words: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            ["tailscale", *words], capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as e:
        raise Unknown("tailscale is not installed") from e
    except subprocess.TimeoutExpired as e:
        raise Unknown("tailscale does not answer") from e
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError as e:
        raise Unknown(f"tailscale: {(done.stderr or done.stdout).strip()[:200]}") from e
    return found
