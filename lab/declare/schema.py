"""Schema: JSON schemas of the files of conf/, made from the models' fields, so that editors complete and check YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, BeforeValidator, PlainValidator, WrapValidator

from lab import kinds
from lab.core.host import Host
from lab.core.kind import RefTo
from lab.declare.conf import known_kinds
from lab.declare.settings import Settings

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TEXT = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
"""What may stand for any value: an interpolation, or `???`."""


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each kind's files by kind, and those of `lab`, `profile`, `stage` and `host`. Pure."""
    out = {}
    for kind in known_kinds():
        model = kinds.load(kind)
        if model is not None:
            out[kind] = of_model(model, kind, model.__doc__ or "")
    out["host"] = of_model(Host, "host", Host.__doc__ or "")
    out["lab"] = of_model(Settings, "lab", "conf/lab.yaml: the lab, and what it is composed with.")
    sets = "which resources are part of the lab, and what it sets otherwise."
    out["profile"] = of_model(Settings, "profile", f"A profile: {sets}")
    out["stage"] = of_model(Settings, "stage", f"A stage, the lab once more with a state of its own: {sets}")
    inline = {"type": "object", "description": "Fields of single resources that this file sets."}
    for name in ("lab", "profile", "stage"):
        if name != "lab":
            out[name].pop("anyOf", None)
        out[name]["properties"] |= {k: inline for k in known_kinds() if k not in out[name]["properties"]}
        out[name]["additionalProperties"] = True
    return out


def of_model(model: type[BaseModel], name: str, description: str) -> dict[str, Any]:
    """The schema of one model as a file of conf/: interpolations and a defaults list are allowed. Pure."""
    made = model.model_json_schema(by_alias=True)
    for inner in [made, *made.get("$defs", {}).values()]:
        if "properties" in inner:
            inner["properties"] = {k: _or_text(v) for k, v in inner["properties"].items()}
    free = _free(model)
    for field, info in model.model_fields.items():
        here = made["properties"][info.alias or field]
        if "*" in free and "anyOf" in here:
            here["anyOf"].append({"type": ["object", "array"]})
        if field in free:
            here.pop("anyOf", None)
            here.pop("type", None)
    made["properties"]["defaults"] = {"type": "array", "description": "Hydra's defaults list: files to start from."}
    required = made.pop("required", [])
    if required:
        made["anyOf"] = [{"required": required}, {"required": ["defaults"]}]
    head = {"$schema": DRAFT, "title": name, "description": _plain(description)}
    made.pop("title", None)
    made.pop("description", None)
    return {**head, **made}


def _free(model: type[BaseModel]) -> set[str]:
    """Fields whose values a validator reads before their type does, so that more may be written; `*` where any may."""
    found = model.__pydantic_decorators__
    out = {f for d in found.field_validators.values() if d.info.mode != "after" for f in d.info.fields}
    out |= {f for f, info in model.model_fields.items() if _read_before([*info.metadata, info.annotation])}
    return out | {"*" for d in found.model_validators.values() if d.info.mode != "after"}


def _read_before(marks: Iterable[Any]) -> bool:
    """Whether a validator among these marks, or inside these types, reads a value before its type; references aside."""
    for mark in marks:
        if isinstance(mark, (BeforeValidator, PlainValidator, WrapValidator)) and not isinstance(mark.func, RefTo):
            return True
        if _read_before(get_args(mark)):
            return True
    return False


def _or_text(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "string" and not {"pattern", "enum", "const", "format", "minLength"} & set(schema):
        return schema
    kept: dict[str, Any] = {k: schema[k] for k in ("description", "default") if k in schema}
    inner = {k: v for k, v in schema.items() if k not in ("title", "description", "default")}
    choices = inner["anyOf"] if set(inner) == {"anyOf"} else [inner]
    return {**kept, "anyOf": [*choices, _TEXT]} if inner else kept


def _plain(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def text(schema: dict[str, Any]) -> str:
    """A schema as the file that holds it. Pure."""
    return json.dumps(schema, indent=1, ensure_ascii=False, sort_keys=False, default=str) + "\n"


def write(folder: Path) -> list[Path]:
    """The schemas stand in `folder`, one file each; returns those that were changed."""
    changed = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        path, wanted = folder / f"{name}.json", text(schema)
        if not path.is_file() or path.read_text(encoding="utf-8") != wanted:
            path.write_text(wanted, encoding="utf-8")
            changed.append(path)
    return changed
