"""Call: the small program that runs a declared `call: package.module:function` inside its run."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import json
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

GIVEN = ("seed", "models", "datasets", "outputs", "checkpoints", "resumed", "config", "run")
"""Names a function may take besides its parameters."""


class Mistake(Exception):
    """A parameter that the function cannot take."""


def main() -> None:
    """Runs the call of the run in `LAB_RUN`; exits with 0, or with 1 after saying what was raised."""
    folder = Path(os.environ["LAB_RUN"])
    spec = json.loads((folder / "spec.json").read_text())
    sys.path[:0] = [p for p in spec.get("path", ()) if p not in sys.path]
    code, said = 0, {"state": "finished", "reason": ""}
    try:
        invoke(spec, folder)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
        said = {"state": "finished" if code == 0 else "failed", "reason": "" if code == 0 else f"exited with {e.code}"}
    except KeyboardInterrupt:
        code, said = 130, {"state": "stopped", "reason": "interrupted"}
    except Mistake as e:
        code, said = 1, {"state": "failed", "reason": str(e)}
        print(e, file=sys.stderr)
    except BaseException as e:
        import traceback

        traceback.print_exc()
        last = traceback.format_exception_only(e)[-1].strip()
        code, said = 1, {"state": "out of memory" if isinstance(e, MemoryError) else "failed", "reason": last}
    said["reason"] = _masked(said["reason"], spec.get("secrets") or ())
    try:
        sys.stdout.flush()
    except OSError:
        # The log's disk is full: what was printed is lost, how the run ended is not.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until this process ends, a moment from now
    try:
        temporary = folder / ".exit.json.lab-tmp"
        temporary.write_text(json.dumps(said))
        os.replace(temporary, folder / "exit.json")
    except OSError as e:
        with contextlib.suppress(OSError):
            print(f"lab: how the run ended could not be written ({e})", file=sys.stderr)
    sys.exit(code)


def _masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without the values of the variables that are secrets. Reads."""
    for value in sorted((os.environ.get(n, "") for n in secrets), key=len, reverse=True):
        text = text.replace(value, "***") if value else text
    return text


def invoke(spec: Mapping[str, Any], folder: Path) -> Any:
    """Imports the function, seeds what is imported, calls it, logs the numbers it returns."""
    module, _, name = str(spec["call"]).partition(":")
    seed_all(int(spec["seed"]))
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    seed_all(int(spec["seed"]))
    from lab.sdk import run as sdk

    run = sdk.init(describing=False)
    given = {
        "seed": spec["seed"],
        "models": _paths(spec.get("models", {})),
        "datasets": _paths(spec.get("datasets", {})),
        "outputs": {n: folder / "outputs" / p for n, p in spec.get("outputs", {}).items()},
        "checkpoints": folder / "checkpoints",
        "resumed": sdk.resumed(),
        "config": run.config,
        "run": run,
    }
    told = function(**arguments(function, spec["params"], given))
    if isinstance(told, Mapping):
        run.log({str(k): v for k, v in told.items()})
    elif isinstance(told, (int, float)) and not isinstance(told, bool):
        run.log({"result": told})
    return told


def seed_all(seed: int) -> None:
    """Python's, numpy's, torch's and mlx's generators start at `seed`, as far as they have been imported."""
    import random

    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)
    if (mlx := sys.modules.get("mlx.core")) is not None:
        mlx.random.seed(seed)


def arguments(function: Callable[..., Any], params: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a call, each of the type its parameter is annotated with; raises Mistake."""
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    signature = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.values())
    unknown = [n for n in params if n not in signature]
    if unknown and not open_ended:
        known = ", ".join(n for n in signature if n not in GIVEN) or "none"
        raise Mistake(f"{_name(function)} takes no parameter {unknown[0]!r}; it takes {known}")
    out: dict[str, Any] = {}
    for name, parameter in signature.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name in params:
            out[name] = convert(params[name], hints.get(name, Any), f"{_name(function)}: {name}")
        elif name in GIVEN:
            out[name] = given[name]
        elif parameter.default is parameter.empty:
            raise Mistake(f"{_name(function)} needs a parameter {name!r}, which is not declared")
    if open_ended:
        out.update({n: v for n, v in params.items() if n not in out})
    return out


def convert(value: Any, hint: Any, where: str) -> Any:
    """`value` as `hint` wants it; raises Mistake where it cannot be without guessing."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is inspect.Parameter.empty or isinstance(hint, str):
        return value
    if origin in (typing.Union, types.UnionType):
        for option in args:
            try:
                return convert(value, option, where)
            except Mistake:
                continue
        raise Mistake(f"{where} should be {hint}, not {value!r}")
    if origin is typing.Literal:
        if value in args:
            return value
        raise Mistake(f"{where} should be one of {', '.join(map(repr, args))}, not {value!r}")
    if hint is type(None):
        if value is None:
            return None
    elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        made: Any = hint
        return made(**arguments(made, value, {}))
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is bool or hint is str:
        if isinstance(value, hint):
            return value
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif (origin or hint) in (list, tuple, set, frozenset) and isinstance(value, (list, tuple)):
        return (origin or hint)(convert(v, args[0] if args else Any, where) for v in value)
    elif isinstance(value, Mapping) or not isinstance(hint, type):
        return value
    else:
        return _made(hint, value, where)
    raise Mistake(f"{where} should be {getattr(hint, '__name__', hint)}, not {value!r}")


def _made(hint: type, value: Any, where: str) -> Any:
    if isinstance(value, hint):
        return value
    try:
        return hint(value)
    except Exception as e:
        raise Mistake(f"{where} should be {hint.__name__}, not {value!r} ({e})") from None


def _paths(things: Mapping[str, Any]) -> dict[str, Any]:
    """Name → path; of a ladder name → level → path."""
    return {n: dict(t["levels"]) if t.get("levels") else str(t["path"]) for n, t in things.items()}


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", str(function))


if __name__ == "__main__":
    main()
