"""live: a run's log and curves as a page on loopback."""

from __future__ import annotations

from dataclasses import dataclass

from lab.adapters.live import Server
from lab.app.lab import Lab
from lab.app.run import folder
from lab.core.problem import problem


@dataclass(frozen=True)
class Live:
    """A page that is ready to be served."""

    url: str
    server: Server

    def serve(self) -> None:
        """Answers until it is interrupted."""
        try:
            self.server.serve_forever(poll_interval=0.1)
        finally:
            self.server.server_close()


def live(lab: Lab, name: str, port: int = 0) -> Live:
    """The page of a run; raises Problems where there is no such run, or the port is taken."""
    run = folder(lab, name)
    try:
        server = Server(lab.state, port)
    except (OSError, OverflowError) as e:
        raise problem(f"port {port} cannot be used", why=str(e), do="leave --port away, or take another") from e
    return Live(server.url(run.id), server)
