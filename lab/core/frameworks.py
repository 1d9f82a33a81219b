"""Frameworks: what Lab knows of LLM frameworks: how each is found and tested, and what is known to go wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.core.envspec import admits


@dataclass(frozen=True, slots=True)
class Framework:
    """One framework. `distribution` is its name on PyPI, `program` its command; one of them finds it."""

    name: str
    title: str
    distribution: str = ""
    program: str = ""
    template: str = ""
    """The env template that installs it."""
    apple: str = ""
    """What to know of it on Apple Silicon."""
    install: str = ""
    """How a program is installed."""
    also: str = ""
    """Another distribution without which it is only a library of something else."""


KNOWN: Mapping[str, Framework] = {
    f.name: f
    for f in (
        Framework(
            "llama_cpp", "llama.cpp (llama-cpp-python)", "llama-cpp-python", template="llama_cpp",
            apple="Metal is built in when compiled there; raise iogpu.wired_limit_mb for models above 75 % of memory",
        ),
        Framework("mlx", "MLX", "mlx", template="mlx", apple="native: Metal, unified memory; macOS 14 or newer"),
        Framework("mlx_lm", "MLX LM", "mlx-lm", template="mlx", apple="native; quantized matmul is slow on linux CPUs"),
        Framework(
            "pytorch", "PyTorch", "torch", template="pytorch_mps",
            apple="device `mps`; PYTORCH_ENABLE_MPS_FALLBACK=1 for operators it lacks; no float64",
        ),
        Framework(
            "transformers", "Transformers", "transformers", template="pytorch_mps", also="torch",
            apple="through PyTorch's `mps`; bitsandbytes quantization is CUDA only",
        ),
        Framework(
            "ollama", "Ollama", program="ollama", install="brew install ollama, or the installer of ollama.com",
            apple="Metal; its model store is apart: Lab shares blobs by hardlink",
        ),
        Framework("ollama_client", "Ollama's client", "ollama", template="ollama_client"),
        Framework("openai", "OpenAI client", "openai", template="ollama_client"),
        Framework("vllm", "vLLM", "vllm", apple="CPU only there; the Metal plugin is experimental"),
        Framework("langchain", "LangChain", "langchain", template="agents"),
        Framework("llama_index", "LlamaIndex", "llama-index-core", template="agents"),
        Framework("autogen", "AutoGen", "autogen-agentchat", template="agents"),
        Framework("crewai", "CrewAI", "crewai", template="agents"),
        Framework("mcp", "MCP SDK", "mcp", template="agents"),
        Framework("a2a", "A2A SDK", "a2a-sdk", template="agents"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issue:
    """A known fault of packages together: all of `where` hold (package → condition), on platforms that start so."""

    where: Mapping[str, str]
    summary: str
    do: str
    platform: str = ""


ISSUES = (
    Issue(
        {"litellm": ""}, "litellm had releases that stole credentials in March 2026",
        "leave it out, or pin a release you have read",
    ),
    Issue(
        {"transformers": ">=5", "mlx-lm": "<0.31"}, "mlx-lm before 0.31 was written for transformers 4",
        "take mlx-lm >=0.31, or transformers <5",
    ),
    Issue(
        {"numpy": ">=2", "torch": "<2.3"}, "torch before 2.3 was compiled against numpy 1",
        "take torch >=2.3, or numpy <2",
    ),
    Issue({"bitsandbytes": "<0.46"}, "bitsandbytes has no backend there", "quantize with MLX or GGUF", "osx"),
)  # fmt: skip
"""What Lab warns of when a lock holds it."""


def issues(packages: Mapping[str, str], platform: str) -> Iterator[str]:
    """A line for each known fault among locked packages of a platform. Pure."""
    for issue in ISSUES:
        if platform.startswith(issue.platform) and all(
            name in packages and admits(condition, packages[name]) for name, condition in issue.where.items()
        ):
            found = ", ".join(f"{n} {packages[n]}" for n in issue.where)
            yield f"known issue with {found}: {issue.summary}; {issue.do} (docs/envs.md#known-issues)"
