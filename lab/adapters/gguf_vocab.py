"""A tokenizer.json of the byte-level BPE kind as the vocabulary of a GGUF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.core.problem import problem

EXTERNAL = "convert it with llama.cpp's convert_hf_to_gguf.py (docs/quantization.md), and declare that GGUF as a model"
"""What to do with a model Lab's own converter does not take."""

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
PRE_TOKENIZERS = {
    "gpt-2": None,
    "llama-bpe": rf"{_ENGLISH}|{_BEFORE}\p{{L}}+|\p{{N}}{{1,3}}|{_REST}",
    "qwen2": rf"{_ENGLISH}|{_BEFORE}\p{{L}}+|\p{{N}}|{_REST}",
    "tekken": rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}|{_REST}".replace(
        r"[\r\n]*|", r"[\r\n/]*|"
    ),
}
"""llama.cpp's name of a pre-tokenizer → the expression its tokenizer.json splits by; None: GPT-2's own, built in."""


def add(writer: Any, source: Path, config: Mapping[str, Any]) -> None:
    """Tokens, types, merges, special ids and the chat template are in the header."""
    import gguf

    try:
        tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise _external("its tokenizer.json cannot be read") from e
    model = tokenizer["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _external(
            f"its tokenizer is {model.get('type')}{' with byte fallback' if model.get('byte_fallback') else ''}"
        )
    ids: dict[str, int] = dict(model["vocab"])
    added = {t["content"]: t for t in tokenizer.get("added_tokens", ())}
    ids |= {content: t["id"] for content, t in added.items()}
    words = {i: t for t, i in ids.items()}
    tokens, types = [], []
    for i in range(max(config["vocab_size"], max(words, default=-1) + 1)):
        word = words.get(i)
        tokens.append(f"[PAD{i}]" if word is None else word)
        if word is None:
            types.append(gguf.TokenType.UNUSED)
        elif word in added:
            types.append(gguf.TokenType.CONTROL if added[word].get("special") else gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    settings = _json(source / "tokenizer_config.json")
    _special(writer, {**config, **_json(source / "generation_config.json")}, settings, ids)
    begins = any(
        "SpecialToken" in piece
        for step in _steps(tokenizer.get("post_processor"), "processors")
        for piece in step.get("single", ())[:1]
    )
    writer.add_add_bos_token(bool(settings.get("add_bos_token", begins)))
    template = source / "chat_template.jinja"
    chat = template.read_text(encoding="utf-8") if template.exists() else settings.get("chat_template")
    if isinstance(chat, list):
        chat = next((t["template"] for t in chat if t.get("name") == "default"), None)
    if chat:
        writer.add_chat_template(chat)


def pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for how the text is split before merging; a problem where it has none."""
    steps = _steps(tokenizer.get("pre_tokenizer"), "pretokenizers")
    patterns = [s["pattern"].get("Regex", "") for s in steps if s.get("type") == "Split"]
    if not any(s.get("type") == "ByteLevel" for s in steps) or any(s.get("type") == "Digits" for s in steps):
        raise _external("its tokenizer is not byte-level BPE")
    if not patterns:
        if any(s.get("type") == "ByteLevel" and not s.get("use_regex", True) for s in steps):
            raise _external("its tokenizer does not split text before merging")
        return "gpt-2"
    for name, pattern in PRE_TOKENIZERS.items():
        if patterns == [pattern]:
            return name
    raise _external(f"its tokenizer splits text in a way Lab does not know ({patterns[0][:60]})")


def _special(writer: Any, config: Mapping[str, Any], settings: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    for kind in ("bos", "eos", "pad", "unk"):
        value = config.get(f"{kind}_token_id")
        if isinstance(value, list):
            value = value[0] if value else None
        named = settings.get(f"{kind}_token")
        word = named.get("content") if isinstance(named, Mapping) else named
        # The tokenizer's own word wins: config.json lists several ends for chat models.
        value = ids.get(word, value) if isinstance(word, str) else value
        if isinstance(value, int):
            getattr(writer, f"add_{kind}_token_id")(value)


def _steps(block: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if not block:
        return []
    return list(block[key]) if key in block else [block]


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _external(why: str) -> Exception:
    return problem(
        "the model's tokenizer cannot be converted to GGUF by Lab",
        why=why,
        do=EXTERNAL,
    )
