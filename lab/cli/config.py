"""config: reads a setting, or writes one into its YAML, keeping comments and order.

lab config get quantization.tiny_lm_q4.type
lab config set quantization.tiny_lm_q4.type Q6_K
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.adapters.files import put
from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.problem import Problems, did_you_mean, problem
from lab.declare.yaml_edit import edit


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab config`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=type(parser))
    get = verbs.add_parser("get", help="print a value as it is composed")
    get.add_argument("key", help="ADDRESS, ADDRESS.FIELD, or a key of the head such as lab.name")
    put_ = verbs.add_parser("set", help="write a value into the file that declares it")
    put_.add_argument("key")
    put_.add_argument("value", help="YAML: a word, a number, true, [a, b]")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints or writes one value."""
    if args.verb == "get":
        value = _get(lab, args.key)
        print(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        return 0
    file, path = _file(lab, args.key)
    before = file.read_text(encoding="utf-8")
    try:
        value = yaml.safe_load(args.value)
    except yaml.YAMLError as e:
        raise problem("the value is no YAML", do="quote it") from e
    put(file, edit(before, {".".join(path): value}, str(file.relative_to(lab.root))).encode())
    try:
        _ = lab.again(()).declarations
    except Problems:
        put(file, before.encode())
        raise
    print(f"Wrote {file.relative_to(lab.root)}. Run `lab plan` to see what follows.")
    return 0


def _split(lab: Lab, key: str) -> tuple[Address | None, list[str]]:
    for address in sorted(lab.declarations, key=len, reverse=True):
        if key == address or key.startswith(f"{address}."):
            return address, [p for p in key[len(address) + 1 :].split(".") if p]
    return None, key.split(".")


def _get(lab: Lab, key: str) -> Any:
    address, path = _split(lab, key)
    here: Any = lab.declarations[address].model_dump(mode="json", by_alias=True) if address else lab.head
    for step in path:
        if not isinstance(here, Mapping) or step not in here:
            known = list(here) if isinstance(here, Mapping) else []
            raise problem(f"there is no `{step}` in {key}{did_you_mean(step, known)}", do="see `lab show ADDRESS`")
        here = here[step]
    return here


def _file(lab: Lab, key: str) -> tuple[Path, list[str]]:
    address, path = _split(lab, key)
    if address:
        return lab.root / lab.place(address)[0], path
    return lab.conf / "lab.yaml", path
