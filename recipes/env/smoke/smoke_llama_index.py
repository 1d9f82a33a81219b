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
url, kind = start()
model = OpenAILike(model="tiny", api_base=url, api_key="none", is_chat_model=True)
assert model.chat([ChatMessage(role="user", content="ping")]).message.content
print(json.dumps({"version": version("llama-index-core"), "device": "", "tested": ["import", f"chat with {kind}"]}))
