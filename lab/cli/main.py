"""The command line: finds the verb, opens the lab, prints, and turns problems into exit code 1."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from lab import __version__
from lab.cli import _stage
from lab.cli._streams import steady
from lab.core import masking
from lab.core.language import t, use
from lab.core.problem import Problems, did_you_mean, encodable, problem

_GROUPS = (
    ("Declare", "init new validate schema recipes config promote docs"),
    (
        "Plan and apply",
        "plan apply destroy status show graph drift verify lock import rollback history state sql gc",
    ),
    ("Work", "run sweep runs queue gpus logs stop resume reproduce compare registry track"),
    ("Models and envs", "models generate bench serve env frameworks"),
    ("Look ahead", "forecast advise calibrate"),
    ("Host", "hosts guest activity access backup restore rebuild bundle maintenance bootstrap doctor"),
    ("More", "dataset integrations completion"),
)
_DAILY = "init new validate plan apply status show drift run sweep runs compare models generate forecast advise doctor"


def verbs() -> dict[str, str]:
    """Verb → its line of help, read from the first line of each module of this folder."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        name = path.stem.rstrip("_")
        if path.stem.startswith("_") or name == "main":
            continue
        with path.open(encoding="utf-8") as f:
            found[name] = f.readline().strip().strip('"').strip()
    return found


def help_text(whole: bool = False) -> str:
    """`lab --help`: on one screen the verbs of every day, and the names of all; `whole` says each. Reads the verbs."""
    known = verbs()
    lines = ["usage: lab [-C DIR] [-q | -v] VERB … [--host NAME]", ""]
    if not whole:
        lines += [*_said(known, _DAILY.split()), ""]
    for title, names in _GROUPS:
        if whole:
            lines += [f"{t(title)}:", *_said(known, names.split())]
        else:
            head = f"{t(title)}: "
            lines += textwrap.wrap(head + names, 100, subsequent_indent="  ", break_on_hyphens=False)
    lines += ["", t("`lab VERB --help` says more, `lab -v help` what each verb is for.")]
    lines += [t("Hydra overrides (`model.x.context=8192`) go on any verb that plans.")]
    lines += [t("`--host NAME` runs a verb on the host of conf/host/NAME.yaml, over ssh.")]
    lines += [t("`stage=NAME` on any verb means that stage of the lab (conf/stage/NAME.yaml).")]
    return "\n".join(lines)


def _said(known: Mapping[str, str], names: Iterable[str]) -> list[str]:
    width = max(map(len, known))
    return [f"  {n:<{width}}  {t(_line(known[n]))}" for n in names]


def _line(text: str) -> str:
    head, _, rest = text.partition(": ")
    return (rest if rest and " " not in head else text).rstrip(".")


_REQUIRED = "the following arguments are required: "


def _there_are(words: Iterable[Any]) -> str:
    return f"there are {', '.join(map(str, words))}" if words else ""


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are problems, with the nearest flag."""

    def error(self, message: str) -> NoReturn:
        """Raises a Problem instead of exiting with 2."""
        hint = ""
        if "unrecognized arguments:" in message:
            word = message.partition(": ")[2].split()[0].partition("=")[0]
            flags = [o for a in self._actions for o in a.option_strings] + ["--host"]
            hint = did_you_mean(word, flags)
        elif message.startswith(_REQUIRED):
            missing = message.removeprefix(_REQUIRED)
            offered = next((a.choices for a in self._actions if a.choices and a.metavar == missing), ())
            message = f"`{self.prog}` needs {'a word more' if offered else missing}"
            raise problem(message, why=_there_are(offered), do=f"see `{self.prog} --help`")
        raise problem(f"{message}{hint}", do=f"see `{self.prog} --help`")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises a Problem with the nearest of the words there are, where `value` is none of them."""
        offered = action.choices
        if offered is None or value in offered:
            return
        known = [str(c) for c in offered]
        of = action.option_strings[-1] if action.option_strings else self.prog
        summary = f"`{of}` knows no `{value}`{did_you_mean(str(value), known)}"
        raise problem(summary, why=_there_are(known), do=f"see `{self.prog} --help`")


def main(argv: Sequence[str], out: IO[str], err: IO[str]) -> int:
    """One command; returns the exit code: 0 done, 1 a problem, 2 only under --detailed-exitcode, 130 interrupted."""
    if odd := next((w for w in argv if not encodable(w)), None):
        raise problem(f"{odd!a} is not UTF-8 text", do="write it in UTF-8")
    top = Parser(prog="lab", add_help=False, allow_abbrev=False)
    top.add_argument("-C", dest="folder", default=".", metavar="DIR")
    top.add_argument("-h", "--help", action="store_true")
    top.add_argument("--version", action="store_true")
    top.add_argument("-q", dest="quiet", action="store_true")
    top.add_argument("-v", dest="verbose", action="store_true")
    top.add_argument("rest", nargs=argparse.REMAINDER)
    options = top.parse_args(list(argv))
    if options.rest[:1] == ["help"]:
        options.rest = [*options.rest[1:2], "--help"]
    if options.version or options.rest == ["version"]:
        print(f"lab {__version__}", file=out)
        return 0
    if options.help or options.rest == ["--help"]:
        print(help_text(options.verbose), file=out)
        return 0
    if options.rest and _stage.WORD.fullmatch(options.rest[0]):
        options.rest = [*options.rest[1:2], options.rest[0], *options.rest[2:]]
    if not options.rest or _stage.WORD.fullmatch(options.rest[0]):
        from lab.cli import _bare

        return _bare.main(Path(options.folder), out, options.rest)
    verb, *words = options.rest
    if verb not in _HOST_IS_A_QUESTION and (host := _host(words)):
        from lab.app import remote
        from lab.app.lab import Lab

        lab = Lab.find(Path(options.folder))
        return remote.run(lab.root, host, [verb, *words], terminal=sys.stdin.isatty() and sys.stdout.isatty())
    known = verbs()
    if verb not in known:
        raise problem(f"`{verb}` is no verb{did_you_mean(verb, known)}", do="see `lab --help`")
    name = verb if (Path(__file__).parent / f"{verb}.py").exists() else f"{verb}_"
    module = importlib.import_module(f"lab.cli.{name}")
    parser = Parser(
        prog=f"lab {verb}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-C", dest="folder", default=options.folder, metavar="DIR", help="the lab's folder")
    parser.add_argument("-q", dest="quiet", action="store_true", default=options.quiet, help="say only what matters")
    parser.add_argument("-v", dest="verbose", action="store_true", default=options.verbose, help="say more")
    module.arguments(parser)
    # Overrides may stand before, between and after flags, as people type them; verbs with sub-verbs cannot take that.
    nested = any(a.nargs in (argparse.PARSER, argparse.REMAINDER) for a in parser._actions)
    parse = parser.parse_args if nested else parser.parse_intermixed_args
    if getattr(module, "ALONE", False):
        return int(module.main(parse(words)))
    stage, others = _stage.taken(parser, words) if any("stage" in w for w in words) else ((), words)
    args = parse(others)
    if stage and not _has_stages(args.folder):
        args, stage = parse(words), ()
    lab = _open(args, stage)
    try:
        return int(module.main(lab, args))
    except (Problems, OSError):
        raise
    except Exception as e:
        if found := _damage(lab):
            raise found from e
        raise


def _damage(lab: Any) -> Problems | None:
    """The ledger's damage, where it has any: an error that nobody foresaw is then most likely its doing."""
    from lab.ledger.ledger import Ledger, altered

    try:
        kept = lab.kept
    except Exception:
        return None  # not even the head could be read: nothing can be said of the ledger
    try:
        found = altered(Ledger.read(kept, ""))
    except Problems as e:
        return e
    except Exception as e:
        return problem("the ledger is damaged", why=str(e), do="see `lab state restore`")
    return found[0] if found else None


_HOST_IS_A_QUESTION = ("forecast", "advise")
"""Verbs whose own `--host` asks about a machine instead of running on it."""


def _host(words: list[str]) -> str:
    """The value of `--host`, taken out of the words."""
    for n, word in enumerate(words):
        if word == "--":
            break
        if word == "--host" and n + 1 < len(words):
            del words[n]
            return words.pop(n)
        if word.startswith("--host="):
            return words.pop(n).partition("=")[2]
    return ""


def _has_stages(folder: str) -> bool:
    from lab.app.lab import Lab

    return (Lab.find(Path(folder)).conf / "stage").is_dir()


def _open(args: argparse.Namespace, stage: Sequence[str] = ()) -> Any:
    from lab.app.lab import Lab
    from lab.cli._progress import Progress

    overrides = (*stage, *(getattr(args, "overrides", None) or ()))
    tell = Progress(sys.stderr, events=getattr(args, "json_events", False), quiet=args.quiet)
    return Lab.find(Path(args.folder), overrides, tell)


def run() -> NoReturn:
    """The entry point `lab`."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(200_000, 20, 20)  # a plan makes many small values and no cycles worth looking for
    use(
        os.environ.get("LAB_LANG")
        or os.environ.get("LC_ALL")
        or os.environ.get("LC_MESSAGES")
        or os.environ.get("LANG", "")
    )
    masking.alone = True
    sys.stdout, sys.stderr = out, err = steady()
    try:
        code = main(sys.argv[1:], out, err)
        sys.stdout.flush()
    except Problems as e:
        _tell(e, sys.argv[1:])
        code = 1
    except KeyboardInterrupt:
        print(t("Interrupted."), file=sys.stderr)
        code = 130
    except Exception as e:
        if os.environ.get("LAB_DEBUG"):
            raise
        from lab.apply.results import explained
        from lab.core.problem import Problem

        found = explained(e) or Problem(
            f"{type(e).__name__}: {e}".splitlines()[0],
            why="this is a fault in Lab, not in your declaration",
            do="run it again with LAB_DEBUG=1 and report what it prints",
        )
        _tell(Problems(found), sys.argv[1:])
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _tell(e: Problems, argv: Sequence[str]) -> None:
    if "--json" in argv and not getattr(sys.stdout, "lost", False):
        import json

        print(json.dumps({"format": 1, "problems": [p.to_json() for p in e.problems]}, indent=1, ensure_ascii=False))
        return
    for p in e.problems:
        print(p if p.file else f"✗ {p}", file=sys.stderr)
    if len(e.problems) > 1:
        print(t("{n} problems. Nothing was changed.", n=len(e.problems)), file=sys.stderr)
