"""Schema: the ledger's tables, and the way from every released version to this one."""

from __future__ import annotations

from lab.ledger.place import Database

VERSION = 1

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE resource (
    address TEXT PRIMARY KEY, digest TEXT NOT NULL, content TEXT NOT NULL, facts TEXT NOT NULL, inputs TEXT NOT NULL,
    declaration TEXT NOT NULL, uses TEXT NOT NULL, profiles TEXT NOT NULL, adopted INTEGER NOT NULL,
    protect INTEGER NOT NULL, pending INTEGER NOT NULL, generation INTEGER NOT NULL, at REAL NOT NULL, sum TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE journal (
    address TEXT NOT NULL, step INTEGER NOT NULL, digest TEXT NOT NULL, text TEXT NOT NULL, state TEXT NOT NULL,
    outcome TEXT NOT NULL, generation INTEGER NOT NULL, at REAL NOT NULL, PRIMARY KEY (address, step)
) WITHOUT ROWID;
CREATE TABLE generation (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, finished REAL, who TEXT NOT NULL, host TEXT NOT NULL,
    version TEXT NOT NULL, revision TEXT NOT NULL, patch TEXT NOT NULL, profile TEXT NOT NULL, overrides TEXT NOT NULL,
    verb TEXT NOT NULL, summary TEXT NOT NULL, outcome TEXT NOT NULL
);
CREATE TABLE history (
    id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL,
    reason TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, at REAL NOT NULL
);
CREATE INDEX history_by_address ON history (address, id);
CREATE INDEX history_by_generation ON history (generation, id);
CREATE TABLE declared (address TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER, declaration TEXT NOT NULL,
    PRIMARY KEY (address, since)) WITHOUT ROWID;
CREATE INDEX declared_now ON declared (until);
"""

MIGRATIONS: dict[int, str] = {}
"""Version → the SQL that makes the next version of it."""


def migrate(database: Database) -> None:
    """An older ledger is brought to the current version, each step in one transaction."""
    version = database.version()
    while version < VERSION:
        database.migrate(MIGRATIONS[version], version + 1)
        version += 1
