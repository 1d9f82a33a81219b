"""serve: an OpenAI-compatible server of a model or quantization, on loopback, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.app.calibrate import ENOUGH, Observed, learn
from lab.app.generate import folder, resolve
from lab.app.lab import Lab
from lab.core.address import Address

if TYPE_CHECKING:
    from lab.adapters.serve import Server


def serve(lab: Lab, address: str, *, port: int = 0, context: int | None = None) -> Server:
    """A server that was started; call `ready()`, then `wait()`, at last `stop(lab, server)`."""
    from lab.adapters.serve import Server

    full = resolve(lab, address)
    log = lab.state / "logs" / f"serve-{full}.log"
    return Server(folder(lab, full), str(full), port=port, context=context, log=log)


def stop(lab: Lab, server: Server) -> bool:
    """It has stopped, and its fastest long answer has corrected the calibration; whether one did."""
    server.close()
    long = [a for a in server.answers() if a["tokens"] >= ENOUGH]
    if not long:
        return False
    best = max(long, key=lambda a: a["rate"])
    middle = best["prompt"] + best["tokens"] // 2
    seen = Observed("serve", server.engine, server.context, middle, best["tokens"], best["rate"], best["load"])
    return learn(lab, Address(server.name), seen)
