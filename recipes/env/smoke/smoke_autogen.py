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
url, kind = start()
info = {
    "vision": False,
    "function_calling": False,
    "json_output": False,
    "family": "unknown",
    "structured_output": False,
}
model = OpenAIChatCompletionClient(model="tiny", base_url=url, api_key="none", model_info=info)
said = asyncio.run(AssistantAgent("smoke", model).run(task="ping"))
assert said.messages[-1].content
print(json.dumps({"version": version("autogen-agentchat"), "device": "", "tested": ["import", f"chat with {kind}"]}))
