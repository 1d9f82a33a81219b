"""completion: prints the script that completes verbs, flags and addresses in bash, zsh or fish.

eval "$(lab completion bash)"
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from lab.cli import main as command
from lab.core.problem import Problems

ALONE = True

_SCRIPTS = {
    "bash": """_lab() {
    local words="$(lab completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)"
    COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _lab lab""",
    "zsh": """_lab() { compadd -- $(lab completion words -- ${words[2,CURRENT]} 2>/dev/null) }
compdef _lab lab""",
    "fish": """function _lab
    lab completion words -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null
end
complete -c lab -f -a "(_lab)\"""",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `lab completion`."""
    parser.add_argument("shell", choices=[*_SCRIPTS, "words"])
    parser.add_argument("typed", nargs="*", help=argparse.SUPPRESS)


def main(args: argparse.Namespace) -> int:
    """Prints the script, or the words that may come next."""
    print(_SCRIPTS[args.shell] if args.shell in _SCRIPTS else "\n".join(words(args.typed, Path(args.folder))))
    return 0


def words(typed: list[str], folder: Path) -> list[str]:
    """What may stand where the last of `typed` stands: verbs, then flags and addresses."""
    known = command.verbs()
    if len(typed) < 2:
        return sorted(known)
    name = typed[0] if typed[0] != "import" else "import_"
    if typed[0] not in known:
        return []
    parser = command.Parser(add_help=True)
    importlib.import_module(f"lab.cli.{name}").arguments(parser)
    flags = [o for a in parser._actions for o in a.option_strings]
    subs = [c for a in parser._actions if isinstance(a, argparse._SubParsersAction) for c in a.choices]
    return [*flags, *subs, *_addresses(folder)]


def _addresses(folder: Path) -> list[str]:
    from lab.app.lab import Lab

    try:
        lab = Lab.find(folder)
        return sorted({*lab.declarations, *lab.records})
    except Problems:
        return []
