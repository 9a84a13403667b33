"""Many rows of one table at once: the statement is compiled once, and rows are bound without its work for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.sql.schema import ScalarElementColumnDefault


class _Insert:
    """An INSERT of some columns as a driver takes it."""

    def __init__(self, table: Table, names: tuple[str, ...], dialect: Dialect) -> None:
        others = [column for column in table.c if column.name not in names]
        self._defaults = {
            column.name: column.default.arg
            for column in others
            if isinstance(column.default, ScalarElementColumnDefault)
        }
        compiled = table.insert().compile(dialect=dialect, column_keys=[*names, *self._defaults])
        self.statement = str(compiled)
        positions: Sequence[str] | None = getattr(compiled, "positiontup", None)
        self._order: Callable[[dict[str, Any]], Any] = dict if positions is None else itemgetter(*positions)
        binds = {
            name: table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in (*names, *self._defaults)
        }
        self._binds = [(name, bind) for name, bind in binds.items() if bind is not None]

    def bound(self, row: Mapping[str, Any]) -> Any:
        """A row's values as the driver takes them."""
        values = {**self._defaults, **row}
        for name, bind in self._binds:
            values[name] = bind(values[name])
        return self._order(values)


_prepared = lru_cache(maxsize=64)(_Insert)


def insert_many(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts rows that name the same columns; columns that they do not name get their defaults."""
    if rows:
        insert = _prepared(table, tuple(rows[0]), connection.dialect)
        connection.exec_driver_sql(insert.statement, [insert.bound(row) for row in rows])
