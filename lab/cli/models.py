"""models: list and filter the models of the lab: what each is, and what it costs on disk.

`lab models --format gguf --fits --params '<13B'`, or any filter: `--where "params>1e6 and format==gguf"`.
`lab models show NAME`, `compare NAME`, `stats`, `check`, `add`, `move NAME STORE`, `export NAME`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from lab.app.lab import Lab
from lab.cli import _arguments, _compare_models
from lab.core.units import size


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab models`; without a sub-verb it is `list`."""
    parse = parser.parse_args
    parser.parse_args = lambda words, space=None: parse(spelled(list(words)), space)  # type: ignore[assignment, method-assign]
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=type(parser))
    sub = verbs.add_parser("list", help="every model, filtered (the same as no VERB)")
    formats = ("safetensors", "gguf", "mlx", "gptq", "awq", "pickle")
    sub.add_argument("--format", default="", choices=formats, metavar="FORMAT", help=", ".join(formats))
    sub.add_argument("--params", default="", metavar="'<13B'", help="a number of parameters, with <, <=, >, >=")
    sub.add_argument("--fits", action="store_true", help="only what this host can run")
    sub.add_argument("--where", default="", metavar="FILTER", help='for example "params>1e6 and format==gguf"')
    _common(sub)
    sub = verbs.add_parser("show", help="one model: files, headers, provenance")
    sub.add_argument("name")
    _common(sub)
    _common(verbs.add_parser("stats", help="logical and physical bytes, per store"))
    _common(verbs.add_parser("check", help="files in the stores that do not belong there; exit code 1 if any"))
    sub = verbs.add_parser("add", help="declare a file or folder as a model, and take it into the store")
    for flag, word in (
        ("--path", "the file or folder"),
        ("--name", "its name; else the file's"),
        ("--url", "where it is from"),
        ("--type", "its format: safetensors, gguf, mlx, gptq, awq"),
        ("--desc", "what it is for"),
    ):
        sub.add_argument(flag, default="", help=word)
    _common(sub)
    _compare_models.arguments(verbs.add_parser("compare", help="its quantizations side by side: size, speed, quality"))
    sub = verbs.add_parser("move", help="declare that a model lives in another store")
    sub.add_argument("name")
    sub.add_argument("store", help="a store or tier of `lab.stores`")
    sub = verbs.add_parser("export", help="one archive with a card and checksums")
    sub.add_argument("name")
    sub.add_argument(
        "to", nargs="?", type=Path, default=Path(), help="a folder, or a file ending in .tar.zst or .tar.gz"
    )


def spelled(words: list[str]) -> list[str]:
    """The words with `list` in front where they begin with its flags or overrides. Pure."""
    named = bool(words) and (words[0] in ("-h", "--help") or (words[0][:1].isalpha() and "=" not in words[0]))
    return words if named else ["list", *words]


def _common(parser: argparse.ArgumentParser) -> None:
    _arguments.as_json(parser)
    _arguments.overrides(parser)


def main(lab: Lab, args: argparse.Namespace) -> int:
    """Prints what was asked for."""
    from lab.app import library, models, strays

    match args.verb:
        case "list":
            found = models.models(lab, *_filters_of(args))
            print(_json([e.to_json() for e in found]) if args.json else table(found))
        case "show":
            one = models.show(lab, args.name)
            print(_json(one) if args.json else page(one))
        case "stats":
            sums = models.stats(lab)
            print(_json(sums) if args.json else costs(sums))
        case "check":
            ours = {str(r.facts.get("path")) for r in lab.records.values()}
            roots = models.Library(lab).roots.values()
            wrong = [s for root in roots for s in strays.strays(root) if str(s.path) not in ours]
            if args.json:
                print(_json([{"path": s.path, "why": s.why} for s in wrong]))
            else:
                lines = [f"{s.path}\n      why {s.why}" for s in wrong]
                print("\n".join([*lines, f"{len(wrong)} stray." if wrong else "The stores are as laid out."]))
            return 1 if wrong else 0
        case "compare":
            return _compare_models.main(lab, args)
        case "add":
            record = library.add(
                lab, path=args.path, name=args.name, url=args.url, type_=args.type, description=args.desc
            )
            name = record["name"]
            told = f"model.{name} is declared in conf/model/{name}.yaml and in the store. See `lab models`."
            print(_json(record) if args.json else told)
        case "move":
            file = library.move(lab, args.name, args.store)
            print(
                f"{file.relative_to(lab.root)} says `store: {args.store}`. Run `lab plan`, then `lab apply` to move it."
            )
        case "export":
            archive, length = library.export(lab, args.name, args.to, _progress)
            print(f"{archive}  {size(length)}, with a card and SHA256SUMS")
    return 0


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done >= total else "\r"
        print(f"  {size(done)} of {size(total)}", end=end, file=sys.stderr, flush=True)


def _filters_of(args: argparse.Namespace) -> list[str]:
    parts = [args.where]
    if args.format:
        parts.append(f"format=={args.format}")
    if args.params:
        parts.append(f"params{args.params if args.params[0] in '<>=!' else '==' + args.params}")
    if args.fits:
        parts.append("fits")
    return parts


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


MARKS = {"stored": " ", "not there yet": "+", "not declared": "?"}


def table(entries: list) -> str:  # type: ignore[type-arg]
    """The list as text."""
    if not entries:
        return "No model is declared or stored that passes. See `lab models --help`."
    rows = [(" ", "NAME", "FORMAT", "PARAMS", "PRECISION", "BYTES", "ON DISK", "CONTEXT", "LICENSE", "FITS")]
    for e in entries:
        name = e.address.removeprefix("model.")
        fits = {True: "yes", False: "no", None: "?"}[e.fits]
        sizes = [size(n) if n is not None else "?" for n in (e.bytes, e.own)]
        told = [str(e.context or "?"), e.license or "?", fits]
        rows.append((MARKS[e.state], name, e.format or "?", count(e.params), e.precision or "?", *sizes, *told))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([f"{c:<{w}}" for c, w in zip(r, widths, strict=True)]).rstrip() for r in rows]
    legend = [f"{m}  {state}" for state, m in MARKS.items() if m.strip() and any(e.state == state for e in entries)]
    return "\n".join([*lines, *legend])


def count(n: int | None) -> str:
    """`7.6B`, `1.2M`. Pure."""
    if n is None:
        return "?"
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n >= unit:
            return f"{n / unit:.1f}{letter}"
    return str(n)


def page(one: dict) -> str:  # type: ignore[type-arg]
    """One model as text."""
    facts = one["facts"]
    rows = [
        ("state", one["state"]),
        ("source", one["source"]),
        ("format", " · ".join(x for x in (one["format"], one["architecture"], one["precision"]) if x)),
        ("parameters", count(one["params"])),
        ("context", one["context"]),
        ("license", one["license"]),
        ("tokenizer", one["tokenizer"]),
        ("chat template", one["chat_template"]),
        ("bytes", size(one["bytes"]) if one["bytes"] is not None else None),
        ("on disk", size(one["own"]) if one["own"] is not None else None),
        ("memory", size(one["memory"]) if one["memory"] else None),
        ("fits", {True: "yes", False: "no", None: None}[one["fits"]]),
        ("tensor types", ", ".join(f"{k} ×{v}" for k, v in (facts.get("types") or {}).items())),
        ("view", one["view"]),
    ]
    lines = [one["address"], *(f"  {k:<14} {v}" for k, v in rows if v)]
    for f in one["files"]:
        where = "" if "/blobs/sha256/" in f["lies_in"] else f"  (lies in {f['lies_in']})"
        lines.append(f"  {f['sha256'][:12]}  {size(f['bytes'] or 0):>9}  {f['name']}{where}")
    return "\n".join(lines)


def costs(sums: dict) -> str:  # type: ignore[type-arg]
    """The statistics as text."""
    lines = []
    for name, s in sums["stores"].items():
        there = "" if s["there"] else "  (not there)"
        lines.append(f"{name:<10} {s['path']}{there}")
        lines.append(f"           {s['views']} views, {size(s['logical'])} logical, {size(s['physical'])} physical")
        if s["foreign"]:
            lines.append(f"           {size(s['foreign'])} of it lies in other tools' folders")
    if sums["ratio"] is not None:
        lines.append(
            f"Together {size(sums['logical'])} logical, {size(sums['physical'])} physical ({sums['ratio']:.0%})."
        )
    return "\n".join(lines)
