"""vLLM imports and names its platform; it loads no model here."""

import json

print("step: import")
import vllm
from vllm.platforms import current_platform

print(json.dumps({"version": vllm.__version__, "device": current_platform.device_type, "tested": ["import"]}))
