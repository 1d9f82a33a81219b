"""Optuna's samplers and pruners, by name with their options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lab.adapters.optuna_storage import quiet
from lab.core.problem import did_you_mean, problem
from lab.core.space import Space, kept
from lab.core.sweeping import PRUNERS, SAMPLERS


def sampler(spec: Mapping[str, Any], space: Space, seed: int, begun: int) -> Any:
    """A sampler; `begun` trials already drawn by another process make a sampler of chance go on, not start over.

    Where nothing was drawn before, it is exactly Optuna's own with this seed.
    """
    optuna = quiet()
    name, options = str(spec.get("name", "tpe")), {k: v for k, v in spec.items() if k != "name"}
    known = SAMPLERS[name]
    if name not in ("grid", "brute_force", "qmc") and begun:
        seed = (seed * 1_000_003 + begun) % 2**32
    _need(name)
    if name == "grid":
        return _grid(optuna)({d.name: [kept(v) for v in d.values()] for d in space.dimensions}, seed)
    if name == "brute_force":
        return _brute(optuna)(seed=seed, **_options(name, optuna.samplers.BruteForceSampler, options))
    cls = getattr(optuna.samplers, known)
    given = {"seed": seed, **_options(name, cls, options)}
    parameters = inspect.signature(cls.__init__).parameters
    for quieter in ("warn_independent_sampling", "warn_asynchronous_seeding"):
        if quieter in parameters:
            given.setdefault(quieter, False)
    return _made(name, cls, given)


def pruner(spec: Mapping[str, Any]) -> Any:
    """A pruner; one that never prunes for an empty spec."""
    optuna = quiet()
    if not spec or spec.get("name") == "none":
        return optuna.pruners.NopPruner()
    name, options = str(spec["name"]), {k: v for k, v in spec.items() if k != "name"}
    cls = getattr(optuna.pruners, PRUNERS[name])
    if name == "patient" and isinstance(options.get("wrapped"), Mapping):
        options["wrapped_pruner"] = pruner(options.pop("wrapped"))
    elif name == "patient":
        options.setdefault("wrapped_pruner", None)
    return _made(name, cls, _options(name, cls, options))


def _options(name: str, cls: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    taken = [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "seed", "args", "kwargs")]
    for option in options:
        if option not in taken:
            listed = ", ".join(t for t in taken if not t.endswith(("_func", "_strategy"))) or "none"
            raise problem(f"{name} has no option `{option}`{did_you_mean(option, taken)}", why=f"it takes {listed}")
    return dict(options)


def _made(name: str, cls: Any, given: Mapping[str, Any]) -> Any:
    try:
        return cls(**given)
    except (TypeError, ValueError) as e:
        raise problem(f"the options of {name} do not fit", why=str(e).splitlines()[0]) from None


def _need(name: str) -> None:
    package = {"cma_es": "cmaes", "gp": "torch"}.get(name)
    if package is None:
        return
    try:
        __import__(package)
    except ImportError:
        raise problem(
            f"the sampler {name} needs {package}, which is not installed", do=f"pip install {package}"
        ) from None


def _grid(optuna: Any) -> Any:
    class Grid(optuna.samplers.GridSampler):  # type: ignore[misc]
        """Optuna's, whose wish to stop the loop of `optimize` is ours to hear: we count the points."""

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            return None

    return Grid


def _brute(optuna: Any) -> Any:
    class Brute(optuna.samplers.BruteForceSampler):  # type: ignore[misc]
        """Optuna's, without the wish to stop."""

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            return None

    return Brute
