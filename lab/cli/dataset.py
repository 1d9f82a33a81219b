"""dataset: versions of data: list, history, head, stats, read, diff, tag, checkout, merge, add, lineage.

lab dataset add data/corpus.jsonl          declares it: writes conf/dataset/corpus.yaml
lab dataset history corpus · lab dataset diff corpus 1 2 · lab dataset checkout corpus@1 --to DIR
lab dataset read corpus --as guest         what that role may see
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from lab.app import dataset
from lab.app.lab import Lab
from lab.core.units import size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab dataset`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="every dataset with its newest version")
    for verb, text in (("history", "its versions"), ("stats", "rows and columns")):
        verbs.add_parser(verb, help=text).add_argument("name")
    one = verbs.add_parser("head", help="the first rows")
    one.add_argument("name")
    one.add_argument("-n", type=int, default=5)
    one = verbs.add_parser("read", help="the rows a role may see, as JSON lines")
    one.add_argument("name")
    one.add_argument("--as", dest="role", required=True)
    for verb, text in (("diff", "files between two versions"), ("merge", "a version with the files of two")):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("name")
        one.add_argument("a")
        one.add_argument("b")
    one = verbs.add_parser("tag", help="a name for a version")
    one.add_argument("name", help="NAME@VERSION")
    one.add_argument("tag")
    one = verbs.add_parser("checkout", help="the bytes of a version")
    one.add_argument("name", help="NAME@VERSION")
    one.add_argument("--to", type=Path)
    one = verbs.add_parser("add", help="declare a file or folder")
    one.add_argument("path", type=Path)
    one.add_argument("--name", default="")
    one = verbs.add_parser("lineage", help="what it is made from and what is made from it")
    one.add_argument("name", help="an address: dataset.corpus, model.tiny")
    one.add_argument("--mermaid", action="store_true")


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints it."""
    verb = args.verb
    if verb == "list":
        for one in dataset.listed(lab):
            version = f"version {one['version']}" if one["version"] else "no version yet"
            rows = f"{one['rows']} rows" if one["rows"] is not None else ""
            print(f"{one['name']:<20} {version:<14} {one['format'] or '':<8} {rows}")
    elif verb == "history":
        print(_history(dataset.history(lab, args.name)))
    elif verb == "stats":
        print(_stats(dataset.stats(lab, args.name)))
    elif verb == "head":
        _lines(dataset.head(lab, args.name, args.n))
    elif verb == "read":
        _lines(dataset.read(lab, args.name, args.role))
    elif verb == "diff":
        for word, files in dataset.diff(lab, args.name, args.a, args.b).items():
            for file in files:
                print(f"{ {'added': '+', 'removed': '-', 'changed': '~'}[word] } {file}")
    elif verb == "merge":
        print(f"Version {dataset.merge(lab, args.name, args.a, args.b)}.")
    elif verb == "tag":
        print(f"Version {dataset.tag(lab, args.name, args.tag)} is {args.tag}.")
    elif verb == "checkout":
        print(f"Written: {dataset.checkout(lab, args.name, args.to)}")
    elif verb == "add":
        path, format = dataset.add(lab, args.path, args.name)
        print(f"Written: {path} ({format}). Run `lab apply --only dataset.{path.stem}`.")
    else:
        found = dataset.lineage(lab, args.name)
        print(dataset.mermaid(found) if args.mermaid else json.dumps(found, indent=1))
    return 0


def _lines(rows: Any) -> None:
    for row in rows:
        print(json.dumps(row, ensure_ascii=False, default=str))


def _history(found: list[dict[str, Any]]) -> str:
    lines = []
    for one in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(one["created"])))
        rows = (one.get("profile") or {}).get("rows")
        lines.append(
            f"version {one['version']}  {made}  {len(one['files'])} files, {size(float(one['bytes']))}"
            + (f", {rows} rows" if rows is not None else "")
            + (f"  broken: {'; '.join(one['broken'])}" if one.get("broken") else "")
        )
    return "\n".join(lines) or "No versions yet."


def _stats(found: dict[str, Any]) -> str:
    lines = [f"{found.get('rows', 0)} rows, {found.get('duplicates', 0)} duplicates"]
    for name, column in (found.get("columns") or {}).items():
        figures = "  ".join(
            f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in column.items() if k != "type"
        )
        lines.append(f"  {name:<20} {column['type']:<8} {figures}")
    return "\n".join(lines)
