"""Where a study is kept: SQLite in the search's folder, or PostgreSQL for several machines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from growlm.errors import GrowLMError, RecipeError

DATABASE = "study.db"
BUSY_SECONDS = 60  # SQLite: wait for another writer
_MEETINGS = 3  # two machines that make the tables at the same instant

_DRIVERS = {
    "psycopg2": 'pip install "psycopg2-binary>=2.9"',
    "psycopg": 'pip install "psycopg[binary]>=3.2"',
    "mysqldb": 'pip install "mysqlclient>=2.2"',
    "pymysql": 'pip install "pymysql>=1.1"',
}


def open_storage(folder: Path, url: str | None) -> tuple[RDBStorage, Path | None]:
    """The storage of a search, and the lock file that goes with it: only SQLite needs one.

    Without `url` it is a SQLite file in `folder`, which is made. Raises RecipeError for a URL that means
    nothing or a driver that is not installed, GrowLMError if the database does not answer.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    url = url or f"sqlite:///{folder / DATABASE}"
    shown = show_url(url)
    sqlite = make_url(url).get_backend_name() == "sqlite"
    arguments: dict[str, Any] = (
        {"connect_args": {"timeout": BUSY_SECONDS}} if sqlite else {"pool_pre_ping": True}
    )
    for meeting in range(_MEETINGS):
        try:
            storage = RDBStorage(url, engine_kwargs=arguments)
            if sqlite:
                _write_ahead(storage)
            return storage, (folder / "study.lock" if sqlite else None)
        except ImportError as error:
            raise _missing_driver(make_url(url).get_dialect().driver, shown) from error
        except (OperationalError, DatabaseError) as error:
            if meeting + 1 == _MEETINGS:
                reason = str(error.orig).strip().partition("\n")[0]
                raise GrowLMError(
                    "the storage of the search does not answer",
                    where=shown,
                    why=reason,
                    fix="start the database, or leave out --storage for a SQLite file on this machine",
                ) from error
            time.sleep(1)
    raise AssertionError


def _write_ahead(storage: RDBStorage) -> None:
    """Let SQLite keep a journal of its own: what was committed survives a kill without a flush for each."""

    def connected(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(storage.engine, "connect", connected)
    storage.engine.dispose()


def show_url(url: str) -> str:
    """A URL without its password. Raises RecipeError if it is none that SQLAlchemy knows."""
    try:
        made = make_url(url)
        made.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise RecipeError(
            "--storage is not the URL of a database",
            where="--storage",
            why=str(error).partition("\n")[0] if "@" not in url else "",
            fix="write --storage postgresql://USER:PASSWORD@HOST/DATABASE, or leave it out for SQLite",
        ) from error
    return made.render_as_string(hide_password=True)


def _missing_driver(driver: str, shown: str) -> RecipeError:
    return RecipeError(
        f"this database needs the driver {driver}, which is not installed",
        where=f"--storage {shown}",
        fix=_DRIVERS.get(driver, f"pip install {driver}"),
    )
