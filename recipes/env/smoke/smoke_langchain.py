"""A LangChain agent gets a reply from an OpenAI-compatible endpoint."""

import json
import os
from importlib.metadata import version

os.environ.setdefault("OPENAI_API_KEY", "none")
print("step: import")
from endpoint import start
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

print("step: chat")
url, model, kind = start()
agent = create_agent(ChatOpenAI(model=model, base_url=url, api_key="none", extra_body={"max_tokens": 16}), tools=[])
said = agent.invoke({"messages": [("user", "ping")]})
assert said["messages"][-1].content
print(json.dumps({"version": version("langchain"), "device": "", "tested": ["import", f"chat with {kind}"]}))
