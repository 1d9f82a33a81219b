"""An OpenAI-compatible endpoint to talk to: a served model at LAB_ENDPOINT, else one here with scripted replies."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPLY = "pong"


class Scripted(BaseHTTPRequestHandler):
    """Answers every chat with REPLY, streamed where that is asked for."""

    def log_message(self, *args):
        """Silent."""

    def do_GET(self):
        """The list of models, and Ollama's."""
        self._send(
            {
                "object": "list",
                "data": [{"id": "tiny", "object": "model"}],
                "models": [{"name": "tiny", "model": "tiny"}],
            }
        )

    def do_POST(self):
        """A chat, a completion, or Ollama's chat."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/api/"):
            return self._send(
                {
                    "model": "tiny",
                    "created_at": "2026-01-01T00:00:00Z",
                    "done": True,
                    "response": REPLY,
                    "message": {"role": "assistant", "content": REPLY},
                }
            )
        if self.path.endswith("/responses"):
            text = {"type": "output_text", "text": REPLY, "annotations": []}
            message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [text]}
            usage = {
                "input_tokens": 1,
                "output_tokens": 1,
                "total_tokens": 2,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            }
            return self._send(
                {
                    "id": "r",
                    "object": "response",
                    "created_at": 1,
                    "model": "tiny",
                    "status": "completed",
                    "output": [message],
                    "parallel_tool_calls": False,
                    "tool_choice": "auto",
                    "tools": [],
                    "usage": usage,
                }
            )
        base = {"id": "c", "created": int(time.time()), "model": "tiny"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        if asked.get("stream"):
            chunks = [
                {"index": 0, "delta": {"role": "assistant", "content": REPLY}, "finish_reason": None},
                {"index": 0, "delta": {}, "finish_reason": "stop"},
            ]
            body = "".join(
                f"data: {json.dumps({**base, 'object': 'chat.completion.chunk', 'choices': [c]})}\n\n" for c in chunks
            )
            return self._raw((body + "data: [DONE]\n\n").encode(), "text/event-stream")
        message = {
            "index": 0,
            "message": {"role": "assistant", "content": REPLY},
            "text": REPLY,
            "finish_reason": "stop",
        }
        return self._send({**base, "object": "chat.completion", "choices": [message], "usage": usage})

    def _send(self, value):
        self._raw(json.dumps(value).encode(), "application/json")

    def _raw(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def start():
    """The endpoint's base URL, `http://…/v1`, the model's name there, and how it is called in the result."""
    given = os.environ.get("LAB_ENDPOINT")
    if given:
        model = os.environ.get("LAB_ENDPOINT_MODEL", "tiny")
        return given, model, model
    return scripted()


def scripted():
    """The same of an endpoint in this process, which speaks Ollama's API too."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1", "tiny", "a scripted endpoint"
