"""Losses of finished runs, read from CSV or JSON lines and checked. No torch."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from growlm.errors import DataError
from growlm.scaling.columns import match_columns, number

FLOPS_PER_PARAMETER_TOKEN = 6.0
"""C = 6 N D (Kaplan et al., 2001.08361, section 2.1)."""

_NUMBERS = ("n", "n_total", "d", "c", "tpp", "loss", "width", "depth", "step", "lr", "lr_end", "lr_peak")
_NEEDED = ("n", "d", "c", "loss")
"""A cell here that is no number is an error; any other column with one is not used."""


_FEWEST = 1e4
"""Parameters of the smallest model that is not taken for a count in millions."""


@dataclass(frozen=True)
class Table:
    """One row per measured loss. `columns`: meaning (see `columns.MEANINGS`) -> (R,) float64, all finite and
    positive (steps and rates: not negative). `runs`: (R,) name of the run a row belongs to."""

    columns: dict[str, np.ndarray]
    runs: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.runs)

    def __contains__(self, meaning: str) -> bool:
        return meaning in self.columns

    def __getitem__(self, meaning: str) -> np.ndarray:
        return self.columns[meaning]

    def where(self, keep: np.ndarray) -> Table:
        """The rows `keep` (mask or indices)."""
        return Table({k: v[keep] for k, v in self.columns.items()}, self.runs[keep], self.notes)


def read_table(path: Path, given: dict[str, str] | None = None, *, measured: bool = True) -> Table:
    """The table of a .csv, .tsv, .json or .jsonl file; `given` maps meanings to its headers.

    `measured` tables need losses; rows without one are left out, and so are rows that repeat another, both
    with a note. In others a loss may be missing, and is NaN then. Raises DataError: no such file, no rows, no
    loss, a cell that is no positive number.
    """
    rows = _rows(Path(path))
    headers = list(dict.fromkeys(str(h) for row in rows for h in row))
    if len(headers) < 2 or "None" in headers:
        raise DataError(
            "this is no table",
            where=str(path),
            why="it has one column" if len(headers) < 2 else "rows are longer than the first, its header",
            fix="give a CSV or JSON lines with one row per measured loss, or run folders",
        )
    found = match_columns(headers, given or {})
    if measured and "loss" not in found:
        raise DataError(
            "there is no column of losses",
            where=str(path),
            why=f"its columns are {', '.join(headers)}",
            fix="name it: --columns loss=HEADER",
        )
    notes = []
    if measured:
        rows, left_out = _with_loss(path, rows, found["loss"][0])
        notes += [f"{left_out} rows of {Path(path).name} have no loss and are left out"] if left_out else []
    columns: dict[str, np.ndarray] = {}
    for meaning, (header, factor) in found.items():
        if meaning not in _NUMBERS:
            continue
        needed = (meaning in _NEEDED or meaning in (given or {})) and (measured or meaning != "loss")
        with nullcontext() if needed else suppress(DataError):
            columns[meaning] = _column(path, rows, header, factor, meaning)
    if not measured and "loss" in found:
        columns["loss"] = np.array([_or_nan(row.get(found["loss"][0])) for row in rows])
    if measured:
        unread = [h for h in headers if h not in {header for header, _ in found.values()}]
        notes += _doubts(Path(path).name, columns, found, unread)
    header = found.get("run", ("", 1.0))[0]
    runs = np.array([str(row.get(header, "")) or Path(path).stem for row in rows])
    return table_of(columns, runs, notes)


def _doubts(
    name: str, columns: dict[str, np.ndarray], found: dict[str, tuple[str, float]], unread: list[str]
) -> list[str]:
    """What a table may have meant otherwise: counts without their unit, tokens under an unknown header."""
    doubts = []
    if "n" in columns and columns["n"].max() < _FEWEST:
        most, header = columns["n"].max(), found["n"][0]
        doubts.append(
            f"{header} of {name} is taken as parameters, at most {most:g}: if these are millions, write "
            f"the unit into the header, {header} (M)"
        )
    if unread and not columns.keys() & {"d", "c", "tpp", "step"}:
        doubts.append(
            f"no column of {name} is read as tokens or FLOPs (not read: {', '.join(unread[:6])}); "
            "--columns d=HEADER names one"
        )
    return doubts


def table_of(columns: dict[str, np.ndarray], runs: np.ndarray, notes: Sequence[str] = ()) -> Table:
    """A table of columns, with what follows from them filled in and rows that repeat another left out."""
    rows = np.column_stack([*columns.values(), np.unique(runs, return_inverse=True)[1]])
    _, first = np.unique(rows, axis=0, return_index=True)
    table = Table(_completed(columns), runs, tuple(notes))
    if len(first) == len(runs):
        return table
    repeated = len(runs) - len(first)
    note = f"{repeated} {'row repeats' if repeated == 1 else 'rows repeat'} another and count once"
    table = table.where(np.sort(first))
    return Table(table.columns, table.runs, (*notes, note))


def join(tables: Sequence[Table]) -> Table:
    """All rows of several tables, with the columns that all of them have; rows that repeat count once."""
    shared = [m for m in tables[0].columns if all(m in t for t in tables)]
    return table_of(
        {m: np.concatenate([t[m] for t in tables]) for m in shared},
        np.concatenate([t.runs for t in tables]),
        list(dict.fromkeys(note for t in tables for note in t.notes)),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("the table cannot be read", where=str(path), why=str(error)) from error
    try:
        if path.suffix.lower() in (".jsonl", ".json", ".ndjson"):
            whole = text.lstrip()
            rows = (
                json.loads(whole)
                if whole.startswith("[")
                else [json.loads(s) for s in text.splitlines() if s.strip()]
            )
        else:
            first = text.splitlines()[0] if text else ""
            delimiter = max(",\t;", key=first.count)
            rows = [dict(row) for row in csv.DictReader(text.splitlines(), delimiter=delimiter)]
    except (ValueError, csv.Error) as error:
        raise DataError("the table is damaged", where=str(path), why=str(error)) from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            "the table has no rows", where=str(path), fix="one row per measured loss, with a header"
        )
    return rows


def _or_nan(cell: Any) -> float:
    return math.nan if _is_empty(cell) else number(str(cell))


def _column(path: Path, rows: list[dict[str, Any]], header: str, factor: float, meaning: str) -> np.ndarray:
    values = np.empty(len(rows))
    for i, row in enumerate(rows):
        cell = row.get(header)
        try:
            values[i] = number(str(cell))
        except ValueError:
            values[i] = math.nan
        least = 0.0 if meaning in ("step", "lr", "lr_end") else math.ulp(0.0)
        if not (math.isfinite(values[i]) and values[i] >= least):
            raise DataError(
                f"{cell!r} is not a {'number >= 0' if least == 0 else 'positive number'}",
                where=f"{path}, row {i + 1}, column {header!r}",
                fix="leave out rows of runs that failed or are not finished",
            )
    return values * factor


def _completed(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Also what follows: C = 6 N D, D = tokens per parameter x N."""
    columns, k = dict(columns), FLOPS_PER_PARAMETER_TOKEN
    n = columns.get("n")
    if n is not None and "d" not in columns:
        if "tpp" in columns:
            columns["d"] = columns["tpp"] * n
        elif "c" in columns:
            columns["d"] = columns["c"] / (k * n)
    if n is None and "c" in columns and "d" in columns:
        columns["n"] = n = columns["c"] / (k * columns["d"])
    if n is not None and "d" in columns and "c" not in columns:
        columns["c"] = k * n * columns["d"]
    return columns


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip() == "")


def _with_loss(path: Path, rows: list[dict[str, Any]], header: str) -> tuple[list[dict[str, Any]], int]:
    """The rows with something in their loss, and how many have nothing."""
    kept = [row for row in rows if not _is_empty(row.get(header))]
    if not kept:
        raise DataError("no row has a loss", where=f"{path}, column {header!r}")
    return kept, len(rows) - len(kept)
