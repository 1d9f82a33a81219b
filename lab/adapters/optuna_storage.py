"""Where Optuna keeps a study: a journal file, SQLite, PostgreSQL, or a gRPC proxy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.adapters.optuna_journal import Journal, mend
from lab.core.problem import problem

KINDS = ("journal", "sqlite", "postgresql", "grpc")


def quiet() -> Any:
    """The optuna module, without its own log lines."""
    try:
        import optuna
    except ImportError:
        raise problem("sweeps need Optuna, which is not installed", do="pip install 'llm-lab[sweep]'") from None
    import warnings

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for category in (optuna.exceptions.ExperimentalWarning, UserWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"optuna\..*|lab\..*")
    return optuna


def open_storage(where: str, folder: Path) -> Any:
    """An Optuna storage. `where`: empty or `journal`; `sqlite`; a URL of SQLite or PostgreSQL; `grpc://HOST:PORT`."""
    optuna = quiet()
    folder.mkdir(parents=True, exist_ok=True)
    if where in ("", "journal"):
        path = folder / "journal.log"
        mend(path)
        journal = optuna.storages.journal
        lock = journal.JournalFileSymlinkLock(str(path), grace_period=3)
        return optuna.storages.JournalStorage(Journal(journal.JournalFileBackend(str(path), lock_obj=lock)))
    if where.startswith("grpc://"):
        return _proxy(optuna, where)
    url = f"sqlite:///{folder / 'study.db'}" if where == "sqlite" else where
    if url.startswith("postgresql://"):
        url = _driver(url)
    engine: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite:"):
        engine = {"connect_args": {"timeout": 30}}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=engine)
    except problem_types() as e:
        raise problem(
            f"the storage {shown(where)} cannot be opened",
            why=_first(e),
            do="start it, or check its address and account",
        ) from None


def problem_types() -> tuple[type[BaseException], ...]:
    """What a storage raises when it cannot be reached."""
    import sqlalchemy.exc

    optuna = quiet()
    return (sqlalchemy.exc.SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError, OSError, RuntimeError)


def shown(where: str) -> str:
    """A storage's address without a password. Pure."""
    head, at, rest = where.rpartition("@")
    if not at or "://" not in head:
        return where
    scheme, _, account = head.partition("://")
    return f"{scheme}://{account.partition(':')[0]}@{rest}"


def _driver(url: str) -> str:
    for name in ("psycopg", "psycopg2"):
        try:
            __import__(name)
        except ImportError:
            continue
        return url.replace("postgresql://", f"postgresql+{name}://", 1)
    raise problem("PostgreSQL needs a driver, which is not installed", do="pip install 'psycopg[binary]'")


def _proxy(optuna: Any, where: str) -> Any:
    host, _, port = where.removeprefix("grpc://").rpartition(":")
    if not host or not port.isdigit():
        raise problem(f"`{where}` is no proxy address", do="write grpc://HOST:PORT")
    try:
        return optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    except ImportError:
        raise problem("Optuna's proxy needs grpcio, which is not installed", do="pip install grpcio protobuf") from None


def _first(error: BaseException) -> str:
    origin = getattr(error, "orig", None) or error.__cause__ or error
    lines = [line for line in str(origin).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
