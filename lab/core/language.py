"""Language: the words a person reads, in theirs. English is the source; a catalogue maps it to another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_catalogue: Mapping[str, str] = {}


def use(locale: str) -> None:
    """From now on `t` answers in the language of `locale` (`zh_CN.UTF-8`); English where there is no catalogue."""
    global _catalogue
    path = Path(__file__).with_name(f"{locale.partition('_')[0].partition('.')[0]}.json")
    _catalogue = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def t(text: str, **values: object) -> str:
    """`text` in the language in use, with `{name}` replaced by `values`. Pure but for `use`."""
    found = _catalogue.get(text, text)
    return found.format(**values) if values else found
