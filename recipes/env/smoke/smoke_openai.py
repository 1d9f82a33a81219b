"""OpenAI's client gets a reply from an OpenAI-compatible endpoint."""

import json
import os
from importlib.metadata import version

os.environ.setdefault("OPENAI_API_KEY", "none")
print("step: import")
import openai
from endpoint import start

print("step: chat")
url, model, kind = start()
client = openai.OpenAI(base_url=url, api_key="none")
said = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "ping"}], max_tokens=16)
assert said.choices[0].message.content
print(json.dumps({"version": version("openai"), "device": "", "tested": ["import", f"chat with {kind}"]}))
