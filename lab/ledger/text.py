"""Text: a ledger as lines of JSON, one row each, the same for every place; between two ledgers, row by row."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from lab.core.problem import Problems, problem
from lab.ledger import schema
from lab.ledger.place import RESTORE, Database
from lab.ledger.sqlite import Sqlite

FORMAT = 1
ORDER = {
    "meta": "key",
    "resource": "address",
    "journal": "address, step",
    "generation": "number",
    "history": "id",
    "declared": "address, since",
}
"""Every table → what its rows are ordered by."""
OWN = ("mark", "schema")
"""Keys of `meta` that belong to a place, not to the ledger."""


def columns(table: str) -> list[str]:
    """The names of a table's columns, in order."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(schema.TABLES)
        return [c[0] for c in db.execute(f"SELECT * FROM {table}").description]  # nosec B608 # names of ours


def rows(source: Database, table: str) -> Iterator[tuple[Any, ...]]:
    """A table's rows in their order."""
    names = ", ".join(columns(table))
    try:
        for row in source.execute(f"SELECT {names} FROM {table} ORDER BY {ORDER[table]}"):  # nosec B608 # names of ours
            if table != "meta" or row[0] not in OWN:
                yield tuple(row)
    except sqlite3.OperationalError as e:
        what = str(e).encode("ascii", "backslashreplace").decode()
        raise problem(f"the ledger is damaged: {table} cannot be read", why=what, do=RESTORE) from e


def copy(source: Database, target: Database) -> None:
    """All rows are in `target` too, whose tables are there and empty; inside its transaction."""
    target.execute("DELETE FROM meta")
    for table in ORDER:
        insert(target, table, rows(source, table))


def insert(target: Database, table: str, found: Iterable[tuple[Any, ...]]) -> None:
    """Rows are in an empty table."""
    names = columns(table)
    marks = ",".join("?" * len(names))
    target.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", found)  # nosec B608 # names of ours


def export(file: Path) -> Iterator[str]:
    """The lines of a ledger's SQLite file: a head, one line per row, and last the SHA-256 of all lines before."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
        source = Sqlite(db)
        whole = hashlib.sha256()
        count = 0
        meta = dict(rows(source, "meta"))
        for line in _lines(source, meta):
            whole.update(line.encode())
            count += 1
            yield line
        yield json.dumps({"lines": count, "sha256": whole.hexdigest()}) + "\n"


def _lines(source: Sqlite, meta: dict[str, Any]) -> Iterator[str]:
    head = {"format": FORMAT, "schema": source.version(), "lab": meta.get("lab", ""), "serial": meta.get("serial")}
    yield json.dumps({"lab_ledger": head}, ensure_ascii=False) + "\n"
    for table in ORDER:
        names = columns(table)
        for row in rows(source, table):
            yield json.dumps({table: dict(zip(names, row, strict=True))}, ensure_ascii=False) + "\n"


def load(lines: Iterable[str], file: Path, name: str) -> None:
    """The SQLite file at `file` holds what the lines say; Problems where they are not whole or not a ledger's."""
    whole = hashlib.sha256()
    found: dict[str, list[tuple[Any, ...]]] = {table: [] for table in ORDER}
    names = {table: columns(table) for table in ORDER}
    head: Any = None
    end: Any = None
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            value = json.loads(line)
            ((word, content),) = list(value.items())[:1]
            if end is not None or (number == 1) != (word == "lab_ledger"):
                raise ValueError
            if word == "lines":
                end = value
                if content != number - 1 or value["sha256"] != whole.hexdigest():
                    raise _refused(name, number, "its checksum is another: it was altered or is not whole")
                continue
            whole.update(line.encode())
            if word == "lab_ledger":
                head = content
                if (head["format"], head["schema"]) != (FORMAT, schema.VERSION):
                    raise _refused(
                        name,
                        1,
                        f"it is of format {head['format']}, schema {head['schema']}; this Lab knows"
                        f" {FORMAT} and {schema.VERSION}",
                    )
            else:
                found[word].append(tuple(content[n] for n in names[word]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _refused(name, number, "it is no line of an exported ledger") from None
    if end is None:
        raise _refused(name, number, "it ends before its last line")
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        target = Sqlite(db)
        target.create("")
        target.begin()
        target.execute("DELETE FROM meta")
        try:
            for table, of_table in found.items():
                insert(target, table, of_table)
        except sqlite3.Error as e:
            raise _refused(name, 0, f"its rows do not fit together: {e}") from None
        target.commit()


def _refused(name: str, line: int, why: str) -> Problems:
    return problem("the exported ledger cannot be taken", why=why, file=name, line=line, do="export it again")
