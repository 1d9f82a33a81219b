"""Ollama's client gets a reply over Ollama's own API."""

import json
import os
from importlib.metadata import version

os.environ.setdefault("OPENAI_API_KEY", "none")
print("step: import")
import ollama
from endpoint import scripted

print("step: chat")
url, model, kind = scripted()
said = ollama.Client(host=url.removesuffix("/v1")).chat(model=model, messages=[{"role": "user", "content": "ping"}])
assert said.message.content
print(json.dumps({"version": version("ollama"), "device": "", "tested": ["import", f"chat with {kind}"]}))
