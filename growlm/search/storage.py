"""Where a study is kept: SQLite in the search's folder, or PostgreSQL for several machines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import TableClause, column, event, table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError, OperationalError

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


def insert(storage: RDBStorage, of: Literal["study", "trial"], id_: int, name: str, value: Any) -> bool:
    """Give a study or trial an attribute (JSON) that it does not have; False if it has. Optuna's own way
    overwrites: of two machines each would think that it was the first."""
    attributes, owner = _attributes(of)
    row = {owner: id_, "key": name, "value_json": json.dumps(value)}
    try:
        with storage.engine.begin() as connection:
            connection.execute(attributes.insert().values(row))
    except IntegrityError:
        return False
    return True


def exchange(
    storage: RDBStorage, of: Literal["study", "trial"], id_: int, name: str, before: Any, now: Any
) -> bool:
    """Set an attribute if it still is `before`, in one step; False if another process was faster."""
    attributes, owner = _attributes(of)
    mine = (attributes.c[owner] == id_) & (attributes.c["key"] == name)
    same = mine & (attributes.c["value_json"] == json.dumps(before))
    with storage.engine.begin() as connection:
        changed = connection.execute(attributes.update().where(same).values(value_json=json.dumps(now)))
    return changed.rowcount == 1


def _attributes(of: Literal["study", "trial"]) -> tuple[TableClause, str]:
    """Optuna's table of the user attributes of studies or trials, and its column of whose they are."""
    owner = f"{of}_id"
    return table(f"{of}_user_attributes", column(owner), column("key"), column("value_json")), owner


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
