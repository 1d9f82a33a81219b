"""hosts: the machines whose figures Lab knows, each with its level of support."""

from __future__ import annotations

from pathlib import Path

from lab.adapters import machine
from lab.core.host import GIB, SUPPORT, Host

__all__ = ["SUPPORT", "hosts", "memory", "page"]
_NOWHERE = Path("/nonexistent")
_ORDER = list(SUPPORT)


def hosts(conf: Path = _NOWHERE) -> list[Host]:
    """Every host that comes with Lab, and those of `conf/host/`, which win; the best supported first. Reads."""
    found = [machine.declared(conf, name) for name in machine.files(conf) if name != "auto"]
    return sorted(found, key=lambda h: (_ORDER.index(h.support), h.name))


def memory(host: Host) -> str:
    """`512 GiB`. Pure."""
    return f"{host.memory / GIB:.0f} GiB" if host.memory else "–"


def page() -> str:
    """docs/support_matrix.md, of the hosts that come with Lab. Reads."""
    known = hosts()
    lines = [
        "# Support",
        "",
        "Written by `lab docs` from the hosts that come with Lab; `lab hosts` prints the same, and those you declare.",
        "Tuning for other hardware than Apple silicon is no goal. What has really run where, and what has not, is in",
        "[What was tested where](platforms.md).",
        "",
        *(f"- **{level}**: {meaning}." for level, meaning in SUPPORT.items()),
        "",
        "| host | support | platform | chip | memory |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {h.name} | {h.support} | {h.platform} | {h.chip or '–'} | {memory(h)} |" for h in known]
    return "\n".join(lines) + "\n"
