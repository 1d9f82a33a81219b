"""Memory, throughput, disk and time arithmetic; pure.

    arch = reading.from_config(config)                       # or from_gguf, from_row, from_lock, catalogue.find(name)
    model(arch, format="gguf", type="Q4_K_M", context=32768, host=host)   # a Forecast for a plan
    needs(arch, Use(type="Q4_K_M", context=32768), host)                  # the same in its parts
    plan(changes)                                                         # totals of a plan

Modules are loaded when they are first asked for: a plan of files needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lab.core.forecast import Forecast
from lab.core.host import Host

if TYPE_CHECKING:
    from lab.forecast.architecture import Architecture
    from lab.forecast.totals import Totals, plan
    from lab.forecast.use import Needs, Use, needs

__all__ = ["Architecture", "Needs", "Totals", "Use", "model", "needs", "plan"]

_HOMES = {
    "Architecture": "architecture", "Needs": "use", "Use": "use", "needs": "use", "Totals": "totals", "plan": "totals",
}  # fmt: skip


def model(arch: Architecture, *, host: Host | None = None, **use: Any) -> Forecast:
    """What running a model as declared takes; `use` are the fields of `Use`. Pure."""
    from lab.forecast.use import Use, needs

    return needs(arch, Use(**use), host).forecast()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"lab.forecast.{_HOMES[name]}"), name)
    raise AttributeError(name)
