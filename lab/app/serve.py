"""serve: an OpenAI-compatible server of a model or quantization, on loopback, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.app.generate import folder, resolve
from lab.app.lab import Lab

if TYPE_CHECKING:
    from lab.adapters.serve import Server


def serve(lab: Lab, address: str, *, port: int = 0, context: int | None = None) -> Server:
    """A server that was started; call `ready()`, then `wait()` or `close()`."""
    from lab.adapters.serve import Server

    full = resolve(lab, address)
    log = lab.state / "logs" / f"serve-{full}.log"
    return Server(folder(lab, full), str(full), port=port, context=context, log=log)
