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
from typing import Any, ClassVar

from lab.adapters import child, machine, runners
from lab.core.problem import problem

HOST = "127.0.0.1"


class Server:
    """A server that runs: `url` ends in /v1. Stops when closed, or when this process ends, however it ends."""

    def __init__(self, folder: Path, name: str, *, port: int = 0, context: int | None = None, log: Path) -> None:
        self.engine = runners.engine(folder)
        _installed(self.engine)
        self.name, self.log, self.rates = name, log, log.with_suffix(".rates")
        self.port = port or free_port()
        if port and not _is_free(port):
            raise problem(
                f"port {port} is taken", why="another program listens there", do="give another with --port, or --port 0"
            )
        self.url = f"http://{HOST}:{self.port}/v1"
        model = runners.gguf(folder) if self.engine == "llama.cpp" else folder
        self.context = context or runners.CONTEXT
        asked = {"engine": self.engine, "model": str(model), "name": name, "port": self.port, "context": context}
        asked["rates"] = str(self.rates)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *child.paths()])}
        env |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", **child.preload()}
        log.parent.mkdir(parents=True, exist_ok=True)
        self.rates.unlink(missing_ok=True)
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
                urllib.request.urlopen(f"{self.url}/models", timeout=5),  # nosec B310 # a server of ours
            ):
                return time.perf_counter() - began
            time.sleep(0.1)
        self.close()
        raise problem(f"the server of {self.name} did not answer in {timeout:.0f} s", do=f"see {self.log}")

    def wait(self) -> int:
        """Its exit status, when it ends."""
        return self.process.wait()

    def answers(self) -> list[dict[str, Any]]:
        """How fast each answer came that it gave alone: `{prompt, tokens, rate, load}`. Reads."""
        found = []
        with contextlib.suppress(OSError):
            for line in self.rates.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # A line that a crash cut short.
                    found.append(json.loads(line))
        return found

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


class _Answer:
    """One answer while it is generated; its rate is written down when it is done."""

    def __init__(self) -> None:
        self.tokens, self.first, self.last, self.load = 0, 0.0, 0.0, machine.load()

    def token(self) -> None:
        self.last = time.perf_counter()
        self.tokens += 1
        self.first = self.first or self.last

    def done(self, prompt: int, path: str) -> None:
        if self.tokens < 2 or self.last <= self.first:
            return
        rate = (self.tokens - 1) / (self.last - self.first)
        told = {"prompt": prompt, "tokens": self.tokens, "rate": round(rate, 3), "load": round(self.load, 3)}
        with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as f:
            f.write(json.dumps(told) + "\n")


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
        found = call(self, model)
        found.model_path = name  # what it signs answers with where the client named no model
        return found

    LlamaProxy.__call__ = only
    context = str(asked["context"] or runners.CONTEXT)
    sys.argv = ["llama_cpp.server", "--model", asked["model"], "--model_alias", name, "--host", HOST]
    sys.argv += ["--port", str(asked["port"]), "--n_ctx", context]
    import llama_cpp

    plain = llama_cpp.Llama.generate

    def timed(self: Any, tokens: Any, *args: Any, **options: Any) -> Any:
        answer, prompt = _Answer(), len(tokens)
        try:
            for token in plain(self, tokens, *args, **options):
                answer.token()
                yield token
        finally:
            answer.done(prompt, asked["rates"])

    llama_cpp.Llama.generate = timed
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

    class Timed(server.BatchGenerator):  # type: ignore[misc]
        """Times the answers that are generated alone; two at once share the machine, and neither says what it can."""

        answers: ClassVar[dict[int, _Answer]] = {}

        def next(self) -> Any:
            prompts, found = super().next()
            if prompts or len(found) != 1:
                self.answers.clear()
                return prompts, found
            (one,) = found
            answer = self.answers.setdefault(one.uid, _Answer())
            answer.token()
            if one.finish_reason is not None:
                answer.done(len(one.all_tokens) - answer.tokens, asked["rates"])
                del self.answers[one.uid]
            return prompts, found

    server.ModelProvider = Only
    server.BatchGenerator = Timed
    server.APIHandler.handle_models_request = models
    sys.argv = ["mlx_lm.server", "--model", folder, "--host", HOST, "--port", str(asked["port"])]
    server.main()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
