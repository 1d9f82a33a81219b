"""A CrewAI agent gets a reply from an OpenAI-compatible endpoint."""

import json
import os
from importlib.metadata import version

os.environ.setdefault("OPENAI_API_KEY", "none")
print("step: import")
os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")
from crewai import LLM, Agent
from endpoint import start

print("step: chat")
url, model, kind = start()
agent = Agent(
    role="smoke",
    goal="answer",
    backstory="a test",
    llm=LLM(model=f"openai/{model}", base_url=url, api_key="none", max_tokens=16),
)
assert agent.kickoff("ping").raw
print(json.dumps({"version": version("crewai"), "device": "", "tested": ["import", f"chat with {kind}"]}))
