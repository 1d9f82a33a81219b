"""An AutoGen agent gets a reply from an OpenAI-compatible endpoint."""

import json
import os
from importlib.metadata import version

os.environ.setdefault("OPENAI_API_KEY", "none")
print("step: import")
import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient
from endpoint import start

print("step: chat")
url, model, kind = start()
info = {
    "vision": False,
    "function_calling": False,
    "json_output": False,
    "family": "unknown",
    "structured_output": False,
}
client = OpenAIChatCompletionClient(model=model, base_url=url, api_key="none", model_info=info, max_tokens=16)
said = asyncio.run(AssistantAgent("smoke", client).run(task="ping"))
assert said.messages[-1].content
print(json.dumps({"version": version("autogen-agentchat"), "device": "", "tested": ["import", f"chat with {kind}"]}))
