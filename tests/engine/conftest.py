"""A real PostgreSQL server, and ledgers on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests import labs
from tests.postgres import Server, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for this module."""
    with serving() as made:
        yield made


@pytest.fixture
def remote(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Labs made here keep their ledger on the server, in an empty schema."""
    from lab.adapters.postgresql import Server as Remote

    monkeypatch.setattr(labs, "LEDGER", server.url)
    found = Remote(server.url, "", "00000000-test", tell=lambda text: None)
    with closing(found.connect()) as db:
        for (name,) in db.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'lab%'").fetchall():
            db.execute(f'DROP SCHEMA "{name}" CASCADE')
    return found
