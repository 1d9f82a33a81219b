"""calibrate: this machine is measured, and forecasts use it from then on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lab.adapters.files import put
from lab.app.forecast import calibration
from lab.app.lab import Lab
from lab.core.address import Address
from lab.forecast import needs
from lab.forecast.resources import model_use


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, and why it no longer holds."""

    found: dict[str, Any]
    stale: tuple[str, ...] = ()


def calibrate(lab: Lab, engines: Sequence[str] = (), say: Callable[[str], None] = lambda _: None) -> Calibration:
    """This machine, measured and stored in `state/calibration.json`; engines not asked for stay as they were."""
    from lab.adapters import calibrate as adapter

    before = calibration(lab)
    found = adapter.measure(lab.state, list(engines) or list(adapter.versions()), say, lab.host.network)
    found["engines"] = {**before.get("engines", {}), **found["engines"]}
    put(lab.state / "calibration.json", (json.dumps(found, indent=1) + "\n").encode())
    return Calibration(found)


def calibrated(lab: Lab) -> Calibration:
    """What was measured last, and why it no longer holds. Reads."""
    from lab.adapters import calibrate as adapter

    found = calibration(lab)
    return Calibration(found, tuple(adapter.stale(found)) if found else ())


def learn(lab: Lab, address: Address, engine: str, context: int, depth: int, rate: float) -> None:
    """A resource's measured tokens/s corrects what this machine was calibrated to; nothing where it was not."""
    from lab.adapters.calibrate import versions

    declaration: Any = lab.declarations[address]
    at = lab.context(address)
    arch = declaration.shape(at)
    form = declaration.form() if address.kind == "quantization" else model_use(at.lock, at.recorded(address), context)
    if arch is None or engine not in lab.host.engines or rate <= 0:
        return
    expected = needs(arch, form.with_(context=context, depth=depth), lab.host).decode
    if expected:
        feed(lab, engine, expected.value, rate, versions().get(engine, ""))


def feed(lab: Lab, engine: str, forecast: float, measured: float, version: str) -> None:
    """The time a token takes moves a fifth of the way to what was measured: `eta` and `alpha` by the same ratio."""
    found = calibration(lab)
    known = found.get("engines", {}).get(engine)
    if not known or known.get("version") != version or forecast <= 0 or measured <= 0:
        return
    ratio = min(2.0, max(0.5, measured / forecast)) ** 0.2
    known["eta"] *= ratio
    known["alpha"] /= ratio
    known["eta_by_type"] = {k: v * ratio for k, v in known.get("eta_by_type", {}).items()}
    known["fed"] = int(known.get("fed", 0)) + 1
    put(lab.state / "calibration.json", (json.dumps(found, indent=1) + "\n").encode())
