"""What a model is, read from its headers and small files: format, architecture, parameters, precision, context, …"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.adapters import gguf_header, tensors_header
from lab.adapters.gguf_header import Broken, Header
from lab.core.problem import problem
from lab.forecast import reading

ModelFacts = dict[str, Any]
"""`format`, `architecture`, `params`, `precision`, `context`, `license`, `tokenizer`, `chat_template`, `tensor_bytes`,
`bytes`, `files`, `config` (the raw architecture values: config.json's, or GGUF's without long arrays), `shape` (for
`lab.forecast.reading.from_lock`). What is not said is left out."""
SMALL = 32 << 20
"""Bytes of the largest JSON file that is read."""


def read(path: Path | str) -> ModelFacts:
    """The facts of a model file or folder. Raises Problems where a header is damaged. Reads."""
    path = Path(path)
    if path.is_file():
        return facts({path.name: path})
    if not path.is_dir():
        raise problem(f"{path} is not there", do="name a model's file or folder")
    return facts({f.relative_to(path).as_posix(): f for f in sorted(path.rglob("*")) if f.is_file()})


def facts(files: Mapping[str, Path]) -> ModelFacts:
    """The facts of a model whose files lie at these places. Raises Problems where a header is damaged. Reads."""
    ggufs = {n: p for n, p in files.items() if n.lower().endswith(".gguf")}
    shards = {n: p for n, p in files.items() if n.lower().endswith(".safetensors")}
    small = {n: _json(p) for n, p in files.items() if n in ("config.json", "tokenizer_config.json")}
    if ggufs:
        read_ = {n: _guarded(n, p, lambda: gguf_header.read(p)) for n, p in sorted(ggufs.items())}  # noqa: B023
        found = from_gguf(read_)
    elif shards:
        tensors = [_guarded(n, p, lambda: tensors_header.read(p)[0]) for n, p in shards.items()]  # noqa: B023
        found = from_config(small.get("config.json", {})) | tensors_header.summary(
            tensors, small.get("config.json", {})
        )
        mixed = [_guarded(n, p, lambda: tensors_header.read(p)[1]) for n, p in list(shards.items())[:1]]  # noqa: B023
        if mixed and mixed[0].get("format") == "mlx":
            found["mlx"] = True
    else:
        found = from_config(small.get("config.json", {}))
        if any(n.lower().endswith((".bin", ".pt", ".pth", ".ckpt")) for n in files):
            found["format"] = "pickle"
    found |= _texts(files, small.get("tokenizer_config.json", {}))
    found["bytes"] = sum(p.stat().st_size for p in files.values())
    found["files"] = len(files)
    return {k: v for k, v in found.items() if v not in (None, "", {}) and _sayable(v)}


def from_gguf(headers: Mapping[str, Header]) -> ModelFacts:
    """The facts of a GGUF file, or of the parts of a split one. Several whole files are told as `variants`. Pure."""
    names = sorted(headers)
    first = headers[names[0]]
    parts = first.values.get("split.count")
    if not (isinstance(parts, int) and parts > 1) and len(names) > 1:
        one = from_gguf({names[0]: first})
        return one | {"variants": {n: from_gguf({n: headers[n]}).get("precision", "") for n in names}}
    v = first.values
    arch = str(v.get("general.architecture", ""))
    tensors = [t for n in names for t in headers[n].tensors]
    weighs: Counter[str] = Counter()
    for t in tensors:
        weighs[t.type] += t.bytes
    template, tokens = v.get("tokenizer.chat_template"), v.get("tokenizer.ggml.tokens")
    config = {k.removeprefix(arch + "."): x for k, x in v.items() if arch and k.startswith(arch + ".")}
    if isinstance(tokens, Mapping):
        config["vocab_size"] = tokens["length"]
    elif isinstance(tokens, list):
        config["vocab_size"] = len(tokens)
    return {
        "format": "gguf",
        "architecture": arch,
        "params": sum(t.elements for t in tensors),
        "tensor_bytes": sum(t.bytes for t in tensors),
        "precision": weighs.most_common(1)[0][0] if weighs else "",
        "types": dict(sorted(Counter(t.type for t in tensors).items())),
        "context": v.get(f"{arch}.context_length"),
        "license": v.get("general.license"),
        "tokenizer": tokens["sha256"][:16] if isinstance(tokens, Mapping) else None,
        "chat_template": _short(str(template)) if template else None,
        "config": {k: x for k, x in config.items() if not isinstance(x, Mapping) and _sayable(x)},
        "shape": _gguf_shape(v, tensors),
    }


def _gguf_shape(values: Mapping[str, Any], tensors: list[gguf_header.Tensor]) -> dict[str, Any] | None:
    known = {k: x for k, x in values.items() if not isinstance(x, Mapping)}
    try:
        return reading.from_gguf(known, ((t.name, t.shape, t.type) for t in tensors)).facts()
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
        return None


def from_config(config: Mapping[str, Any]) -> ModelFacts:
    """What config.json says: architecture, context, and the raw values. Pure."""
    text = config.get("text_config") if isinstance(config.get("text_config"), Mapping) else config
    assert isinstance(text, Mapping)
    names = config.get("architectures")
    context = next((c for k in ("max_position_embeddings", "n_positions", "seq_length") if (c := text.get(k))), None)
    return {
        "architecture": config.get("model_type") or (names[0] if isinstance(names, list) and names else None),
        "context": context if isinstance(context, int) else None,
        "config": {k: x for k, x in config.items() if k != "auto_map" and _sayable([k, x]) and len(str(x)) < 4096},
        "shape": _shape(config) if config else None,
    }


def _texts(files: Mapping[str, Path], tokenizer_config: Mapping[str, Any]) -> ModelFacts:
    out: ModelFacts = {}
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json"):
        if name in files:
            with open(files[name], "rb") as f:
                out["tokenizer"] = hashlib.file_digest(f, "sha256").hexdigest()[:16]
            break
    template = tokenizer_config.get("chat_template")
    if "chat_template.jinja" in files:
        template = files["chat_template.jinja"].read_bytes()[:SMALL].decode("utf-8", "replace")
    if isinstance(template, list):
        template = next((t.get("template") for t in template if isinstance(t, Mapping)), None)
    if isinstance(template, str):
        out["chat_template"] = _short(template)
    if (card := files.get("README.md")) is not None:
        out["license"] = _license(card.read_bytes()[:65536].decode("utf-8", "replace"))
    return out


def _license(card: str) -> str | None:
    """`license:` of a model card's front matter."""
    head = card.split("---", 2)[1] if card.startswith("---") and card.count("---") > 1 else ""
    line = next((s for s in head.splitlines() if s.startswith("license:")), "")
    return line.partition(":")[2].strip().strip("'\"") or None


def _shape(config: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        return reading.from_config(config).facts()
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
        return None


def _sayable(value: Any) -> bool:
    """Whether plain JSON in UTF-8 can hold it: no infinity, nothing that is no number, no half character."""
    try:
        return bool(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        return False


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > SMALL:
            return {}
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as e:
        raise problem(f"{path.name} is not valid JSON", why=f"{path} belongs to a model", do="fetch it again") from e
    return value if isinstance(value, dict) else {}


def _guarded(name: str, path: Path, reader: Any) -> Any:
    """What the reader finds; the problem says the model's own name for the file: a blob's tells nobody which it is."""
    try:
        return reader()
    except Broken as e:
        raise problem(f"{name} is damaged", why=f"{path}: {e}", do="fetch it again") from e
