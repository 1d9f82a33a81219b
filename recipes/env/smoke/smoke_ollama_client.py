"""Ollama's client gets a reply over Ollama's own API."""

import json
import os
from importlib.metadata import version

os.environ.setdefault("OPENAI_API_KEY", "none")
print("step: import")
import ollama
from endpoint import start

print("step: chat")
url, kind = start()
said = ollama.Client(host=url.removesuffix("/v1")).chat(model="tiny", messages=[{"role": "user", "content": "ping"}])
assert said.message.content
print(json.dumps({"version": version("ollama"), "device": "", "tested": ["import", f"chat with {kind}"]}))
