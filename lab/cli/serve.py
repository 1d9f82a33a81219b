"""serve: an OpenAI-compatible server of a model or quantization, on loopback, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from lab.app import serve as app
from lab.app.lab import Lab
from lab.core.problem import problem


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab serve`."""
    parser.add_argument("address", help="a model or quantization: quantization.tiny_lm.Q4_K_M")
    parser.add_argument("--port", type=int, default=8080, metavar="N", help="on 127.0.0.1 (8080); 0 takes a free one")
    parser.add_argument("--context", type=int, metavar="N", help="tokens of context (llama.cpp)")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints where it listens when it answers; stops it on Ctrl-C."""
    if not 0 <= args.port < 65536:
        raise problem(f"{args.port} is no port", do="give one between 1 and 65535, or 0 for a free one")

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    server = app.serve(lab, args.address, port=args.port, context=args.context)
    try:
        seconds = server.ready()
        print(f"{server.name} answers at {server.url} ({server.engine}, ready in {seconds:.1f} s). Ctrl-C stops it.")
        print(f"  model name  {server.name}", flush=True)
        code = server.wait()
        print(f"the server ended with status {code}; its log is {server.log}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 0
    finally:
        app.stop(lab, server)
