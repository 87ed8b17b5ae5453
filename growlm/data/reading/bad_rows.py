"""Rows that cannot be used: set aside with the reason, up to a limit."""

from __future__ import annotations

from growlm.errors import DataError


class BadRows:
    """An `OnBad` that keeps the rows; more than `limit` of them are an error, at 0 the first is."""

    def __init__(self, limit: int) -> None:
        self.rows: list[dict[str, str]] = []
        self._limit = limit

    def add(self, error: DataError, start: str) -> None:
        """Set a row aside. Raises DataError: it is one too many."""
        self.rows.append({"where": error.where, "reason": error.what, "why": error.why, "row": start})
        if len(self.rows) > self._limit:
            raise too_many(self._limit, len(self.rows), error)


def too_many(limit: int, count: int, last: DataError) -> DataError:
    """The error for more bad rows than are allowed: the last one's own where none is."""
    if not limit:
        return last
    return DataError(
        f"More than {limit} rows are bad",
        where=last.where,
        why=f"the last of {count}: {last.what}" + (f": {last.why}" if last.why else ""),
        fix="repair the source, or allow more of them with --max-bad-rows",
    )
