"""calibrate: this machine is measured, and forecasts use it from then on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.adapters.files import put
from lab.app.forecast import calibration
from lab.app.lab import Lab
from lab.core.address import Address
from lab.forecast import needs
from lab.forecast.resources import model_use
from lab.runs.folder import RunFolder

ENOUGH = 32
"""Tokens in one go from which on a rate says something: of fewer, the start and the clock are too large a part."""
IDLE = 0.5
"""Load per core up to which figures say something of the machine, and correct its calibration."""


@dataclass(frozen=True, slots=True)
class Observed:
    """How fast an engine generated, wherever that was seen."""

    by: str
    """`bench`, `generate`, `serve`, `compare`, or a run's name."""
    engine: str
    context: int
    depth: int
    """Tokens in the context halfway through."""
    tokens: int
    rate: float
    """Tokens per second after the first."""
    load: float
    """The machine's load per core when it began."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, and why it no longer holds."""

    found: dict[str, Any]
    stale: tuple[str, ...] = ()


def calibrate(lab: Lab, engines: Sequence[str] = (), say: Callable[[str], None] = lambda _: None) -> Calibration:
    """This machine, measured and stored in `state/calibration.json`; engines not asked for stay as they were."""
    from lab.adapters import calibrate as adapter

    before = calibration(lab)
    if url := source(lab):
        say("network")
    network = (adapter.line(url, lab.offline) if url else None) or lab.host.network
    found = adapter.measure(lab.state, list(engines) or list(adapter.versions()), say, network)
    found["engines"] = {**before.get("engines", {}), **found["engines"]}
    if "quantize" in before:
        found.setdefault("quantize", before["quantize"])
    put(lab.common / "calibration.json", (json.dumps(found, indent=1) + "\n").encode())
    return Calibration(found)


def source(lab: Lab) -> str:
    """Where the largest locked file that needs no token is fetched from; empty where none is locked. Reads."""
    from lab.adapters import hub

    found: list[tuple[int, str]] = []
    for address, declared in lab.declarations.items():
        declaration: Any = declared
        if address.kind != "model" or declaration.token:
            continue
        at = lab.context(address)
        asked = declaration.source(at)
        for name, file in declaration.files(at).items():
            url = str(file.get("url") or "")
            if not url and asked.get("hub") and file.get("sha256"):
                url = hub.resolve_url(hub.endpoint(asked), str(asked["hub"]), str(asked["revision"]), name)
            if url.startswith("http"):
                found.append((int(file.get("size") or 0), url))
    return max(found, default=(0, ""))[1]


def calibrated(lab: Lab) -> Calibration:
    """What was measured last, and why it no longer holds. Reads."""
    from lab.adapters import calibrate as adapter

    found = calibration(lab)
    return Calibration(found, tuple(adapter.stale(found)) if found else ())


def learn(lab: Lab, address: Address, seen: Observed) -> bool:
    """A resource's measured tokens/s corrects what this machine was calibrated to; whether it counted.

    It counts where at least 32 tokens came in one go, the machine was otherwise idle when it began, and the engine is
    the one that was calibrated, in the same version.
    """
    from lab.adapters.calibrate import versions

    if seen.tokens < ENOUGH or seen.load > IDLE or seen.rate <= 0 or seen.engine not in lab.host.engines:
        return False
    declaration: Any = lab.declarations[address]
    at = lab.context(address)
    arch = declaration.shape(at)
    if address.kind == "quantization":
        form = declaration.form()
    else:
        form = model_use(at.lock, at.recorded(address), seen.context)
    form = form.with_(engine=seen.engine, context=seen.context, depth=seen.depth)
    expected = needs(arch, form, lab.host).decode if arch else None
    if expected is None:
        return False
    told = {"at": round(time.time(), 3), "by": seen.by, "address": str(address), "depth": seen.depth}
    return feed(lab, seen.engine, expected.value, seen.rate, versions().get(seen.engine, ""), told)


def learn_run(lab: Lab, run: RunFolder) -> bool:
    """A finished run that measured the `tokens_per_second` of its one model corrects the calibration, like `learn`.

    It says how deep and how many as `system/depth` and `system/generated_tokens`, and `system/load`. A run in an
    environment of its own may have another version of the engine: it does not count.
    """
    from lab.adapters import runners

    spec, result = run.spec, run.result
    metrics, given = result.get("metrics") or {}, list((spec.get("models") or {}).values())
    if result.get("state") != "finished" or "tokens_per_second" not in metrics or len(given) != 1 or spec.get("prefix"):
        return False
    address = Address(str(given[0].get("address")))
    if lab.declared.digests.get(address) != given[0].get("digest"):
        return False
    found = {k.removeprefix("system/"): v for k, v in metrics.items()}
    return learn(lab, address, observed(run.id, {**found, "engine": runners.engine(Path(given[0]["path"]))}))


def learn_runs(lab: Lab, names: Sequence[str], since: float) -> None:
    """What experiments measured that have ended since corrects the calibration."""
    from lab.adapters.experiments import pointer

    for name in names:
        run = RunFolder(lab.state / "runs" / str(pointer(lab.state, name).get("run", "")))
        if float(run.result.get("ended") or 0) >= since:
            learn_run(lab, run)


def observed(by: str, found: Mapping[str, Any]) -> Observed:
    """What a measure of a level or a run says of the speed; what it does not say counts for nothing. Pure."""
    depth, tokens = int(found.get("depth") or 0), int(found.get("generated_tokens") or 0)
    context = int(found.get("context") or depth + tokens)
    rate, load = float(found.get("tokens_per_second") or 0), float(found.get("load", IDLE + 1))
    return Observed(by, str(found.get("engine", "")), context, depth, tokens, rate, load)


def feed(
    lab: Lab, engine: str, forecast: float, measured: float, version: str, told: Mapping[str, Any] | None = None
) -> bool:
    """The time a token takes moves a fifth of the way to what was measured: `eta` and `alpha` by the same ratio."""
    found = calibration(lab)
    known = found.get("engines", {}).get(engine)
    if not known or known.get("version") != version or forecast <= 0 or measured <= 0:
        return False
    ratio = min(2.0, max(0.5, measured / forecast)) ** 0.2
    known["eta"] *= ratio
    known["alpha"] /= ratio
    known["eta_by_type"] = {k: v * ratio for k, v in known.get("eta_by_type", {}).items()}
    known["fed"] = int(known.get("fed", 0)) + 1
    known["last"] = {**(told or {}), "measured": round(measured, 3), "forecast": round(forecast, 3)}
    try:
        put(lab.common / "calibration.json", (json.dumps(found, indent=1) + "\n").encode())
    except OSError:  # a full disk or a folder of someone else: what was known stays
        return False
    return True
