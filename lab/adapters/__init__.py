"""One file per outside tool. Heavy libraries are imported here only, and only inside the function that needs them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from lab.core.plugins import plugged
from lab.core.problem import problem

PERFORMERS = {
    "write": "lab.adapters.files:write",
    "remove": "lab.adapters.files:remove",
    "fetch": "lab.adapters.fetch:fetch",
    "keep": "lab.adapters.fetch:keep",
    "move_view": "lab.adapters.fetch:move",
    "drop_view": "lab.adapters.fetch:drop",
    "resolve_model": "lab.adapters.resolve:resolve",
    "train": "lab.adapters.train:train",
    "convert": "lab.adapters.gguf_quant:convert",
    "importance": "lab.adapters.imatrix:importance",
    "quantize": "lab.adapters.gguf_quant:quantize",
    "quantize_mlx": "lab.adapters.mlx_quant:quantize_mlx",
    "lock-env": "lab.adapters.envlock:lock",
    "install-env": "lab.adapters.envs:install",
    "remove-env": "lab.adapters.envs:remove",
    "await_readers": "lab.adapters.readers:quiet",
    "execute": "lab.adapters.supervisor:execute",
    "dataset_version": "lab.adapters.datasets:version",
    "drop_dataset": "lab.adapters.datasets:drop",
    "register": "lab.adapters.registry:declared",
    "forget_runs": "lab.adapters.experiments:forget",
    "play": "lab.adapters.ansible:perform",
    "test-framework": "lab.adapters.frameworks:test",
    "sweep": "lab.adapters.optuna_sweep:search",
    "forget_sweep": "lab.adapters.optuna_sweep:forget",
    "open_repository": "lab.adapters.repository:perform",
    "schedule": "lab.adapters.schedule:perform",
}
"""Step verb → `module:function(step, stage)`."""

OBSERVERS = {
    "user": "lab.adapters.files:user",
    "group": "lab.adapters.files:group",
    "account": "lab.adapters.accounts:account",
    "acl": "lab.adapters.accounts:acl",
    "members": "lab.adapters.accounts:members",
    "broker": "lab.adapters.guest_account:broker",
    "tailscale": "lab.adapters.tailscale:preferences",
    "env": "lab.adapters.envs:observe",
    "framework": "lab.adapters.frameworks:observe",
    "registered": "lab.adapters.registry:observe",
    "schedule": "lab.adapters.schedule:observe",
}
"""Question of `World.ask` → `module:function(**details)`; reads only."""


@cache
def performer(verb: str) -> Callable[..., Any]:
    """The function that performs steps of a verb."""
    return _find(PERFORMERS, "lab.performers", verb)


@cache
def observer(question: str) -> Callable[..., Any]:
    """The function that answers a question of a kind."""
    return _find(OBSERVERS, "lab.observers", question)


def _find(table: dict[str, str], group: str, name: str) -> Callable[..., Any]:
    target = table.get(name) or plugged(group).get(name)
    if target is None:
        raise problem(f"nothing performs `{name}`", why=f"no entry in {group}", do="install the package that adds it")
    module, _, attribute = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found
