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
url, kind = start()
agent = create_agent(ChatOpenAI(model="tiny", base_url=url, api_key="none"), tools=[])
said = agent.invoke({"messages": [("user", "ping")]})
assert said["messages"][-1].content
print(json.dumps({"version": version("langchain"), "device": "", "tested": ["import", f"chat with {kind}"]}))
