"""LlamaIndex gets a reply from an OpenAI-compatible endpoint."""

import json
import os
from importlib.metadata import version

os.environ.setdefault("OPENAI_API_KEY", "none")
print("step: import")
from endpoint import start
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

print("step: chat")
url, model, kind = start()
client = OpenAILike(model=model, api_base=url, api_key="none", max_tokens=16, is_chat_model=True)
assert client.chat([ChatMessage(role="user", content="ping")]).message.content
print(json.dumps({"version": version("llama-index-core"), "device": "", "tested": ["import", f"chat with {kind}"]}))
