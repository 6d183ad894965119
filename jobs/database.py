"""Opening the database: durable settings, explicit transactions, the newest schema.

Needs no network and no alembic.ini.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import event

from jobs.errors import StorageFailed

MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Transactions on one database."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, hide_parameters=True)  # they hold prompts
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Do all of the block or nothing.

        Raises:
            StorageFailed: the database cannot be read or written.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise StorageFailed(f"database: {_reason(error)}") from error

    def upgrade(self, revision: str = "head") -> None:
        """Bring the schema to a revision, in one transaction where the database can do that.

        Raises:
            StorageFailed: the database cannot be read or written.
        """
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        with self.transaction() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        # Python's own idea of when a transaction starts leaves schema changes outside; `_begin_sqlite` starts them all.
        connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _reason(error: sa.exc.SQLAlchemyError) -> str:
    """Say what is wrong without the statement and its values, which hold people's prompts."""
    origin = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return str(origin)
