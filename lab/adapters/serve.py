"""Serve: an OpenAI-compatible server of one model on loopback, in a child that ends with its parent.

llama.cpp's own server for GGUFs, mlx-lm's for MLX folders. The latter would load any path or hub name a client asks
for, the former answers for any; here both serve the one model only, and the hub is out of reach.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from lab.adapters import child, runners
from lab.core.problem import problem

HOST = "127.0.0.1"


class Server:
    """A server that runs: `url` ends in /v1. Stops when closed, or when this process ends, however it ends."""

    def __init__(self, folder: Path, name: str, *, port: int = 0, context: int | None = None, log: Path) -> None:
        self.engine = runners.engine(folder)
        _installed(self.engine)
        self.name, self.log = name, log
        self.port = port or free_port()
        if port and not _is_free(port):
            raise problem(
                f"port {port} is taken", why="another program listens there", do="give another with --port, or --port 0"
            )
        self.url = f"http://{HOST}:{self.port}/v1"
        model = runners.gguf(folder) if self.engine == "llama.cpp" else folder
        asked = {"engine": self.engine, "model": str(model), "name": name, "port": self.port, "context": context}
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *child.paths()])}
        env |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", **child.preload()}
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lab.adapters.serve", json.dumps(asked)],
                stdin=subprocess.PIPE, stdout=sink, stderr=subprocess.STDOUT, env=env, start_new_session=True,
            )  # fmt: skip

    def ready(self, timeout: float = 600) -> float:
        """Seconds until it answered; a Problem where it ended instead. Large models take minutes to load."""
        began = time.perf_counter()
        while time.perf_counter() - began < timeout:
            if self.process.poll() is not None:
                raise problem(f"the server of {self.name} ended", why=child.tail(self.log), do=f"see {self.log}")
            with (
                contextlib.suppress(OSError, urllib.error.URLError),
                urllib.request.urlopen(f"{self.url}/models", timeout=5),
            ):
                return time.perf_counter() - began
            time.sleep(0.1)
        self.close()
        raise problem(f"the server of {self.name} did not answer in {timeout:.0f} s", do=f"see {self.log}")

    def wait(self) -> int:
        """Its exit status, when it ends."""
        return self.process.wait()

    def close(self) -> None:
        """It has stopped."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        child.stop(self.process)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as s:
        s.bind((HOST, 0))
        return int(s.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((HOST, port))
        except OSError:
            return False
        return True


def _installed(engine: str) -> None:
    from importlib.util import find_spec

    needed = ("llama_cpp", "uvicorn", "fastapi") if engine == "llama.cpp" else ("mlx", "mlx_lm")
    for package in needed:
        if find_spec(package) is None:
            name = needed[0]
            raise child.missing(ImportError(f"No module named {package!r}", name=name))


def _main(asked: dict[str, Any]) -> None:
    threading.Thread(target=child.end_with_parent, daemon=True).start()
    if asked["engine"] == "llama.cpp":
        _llama(asked)
    else:
        _mlx(asked)


def _llama(asked: dict[str, Any]) -> None:
    from fastapi import HTTPException

    _answer_bad_requests()  # before its routes are made
    from llama_cpp.server import __main__ as server
    from llama_cpp.server.model import LlamaProxy

    name, call = asked["name"], LlamaProxy.__call__

    def only(self: Any, model: str | None = None) -> Any:
        # It would answer for any name with the model it has.
        if model not in (None, name):
            raise HTTPException(404, f"this server has only the model {name}")
        return call(self, model)

    LlamaProxy.__call__ = only
    context = str(asked["context"] or runners.CONTEXT)
    sys.argv = ["llama_cpp.server", "--model", asked["model"], "--model_alias", name, "--host", HOST]
    sys.argv += ["--port", str(asked["port"]), "--n_ctx", context]
    import llama_cpp

    if llama_cpp.llama_supports_gpu_offload():
        sys.argv += ["--n_gpu_layers", "-1"]
    server.main()


def _answer_bad_requests() -> None:
    """A request that is not as the API says is answered with 422 and why, not with 500."""
    from fastapi import HTTPException
    from fastapi.exceptions import RequestValidationError
    from fastapi.routing import APIRoute

    plain = APIRoute.get_route_handler

    def made(self: Any) -> Any:
        handle = plain(self)

        async def handled(request: Any) -> Any:
            try:
                return await handle(request)
            except RequestValidationError as e:
                first = e.errors()[0]
                where = ".".join(str(p) for p in first["loc"])
                raise HTTPException(422, f"{where}: {first['msg']}") from e

        return handled

    APIRoute.get_route_handler = made  # type: ignore[method-assign]


def _mlx(asked: dict[str, Any]) -> None:
    from mlx_lm import server

    name, folder = asked["name"], asked["model"]

    class Only(server.ModelProvider):  # type: ignore[misc]
        """Serves one model; every other name, adapter or draft is refused."""

        def load(self, model_path: str, adapter_path: Any = None, draft_model_path: Any = None) -> Any:
            if (
                model_path not in (name, "default_model")
                or adapter_path
                or draft_model_path not in (None, "default_model")
            ):
                raise ValueError(f"this server has only the model {name}")
            return super().load("default_model", None, "default_model")

    def models(self: Any) -> None:
        self._set_completion_headers(200)
        self.end_headers()
        data = [{"id": name, "object": "model", "created": self.created, "owned_by": "lab"}]
        self.wfile.write(json.dumps({"object": "list", "data": data}).encode())

    server.ModelProvider = Only
    server.APIHandler.handle_models_request = models
    sys.argv = ["mlx_lm.server", "--model", folder, "--host", HOST, "--port", str(asked["port"])]
    server.main()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
