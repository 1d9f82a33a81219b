"""The A2A SDK writes an agent's card and reads it back."""

import json
from importlib.metadata import version

print("step: import")
from a2a import types

print("step: agent card")
card = types.AgentCard(name="smoke", description="a test", version="1")
if hasattr(card, "SerializeToString"):
    back = types.AgentCard.FromString(card.SerializeToString())
else:
    back = types.AgentCard.model_validate_json(card.model_dump_json())
assert back.name == "smoke"
print(json.dumps({"version": version("a2a-sdk"), "device": "", "tested": ["import", "agent card, written and read"]}))
