"""Lab: a declarative, config-as-code manager for an LLM laboratory."""

__version__ = "0.1.0"
