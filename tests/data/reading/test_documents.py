"""What every format has in common: the same documents, whole or in parts, and bad rows that are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from growlm.data.reading.documents import documents, read, rows
from growlm.data.reading.extents import extents
from growlm.data.reading.files import SUFFIXES, others
from growlm.errors import DataError
from tests.data.texts import chinese, english, write_jsonl

TEXTS = english(40, 30) + chinese(20, 40)


def write_parquet(path: Path, texts: list[str], **columns: list) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": texts, **columns}), path, row_group_size=7)
    return path


@pytest.mark.parametrize("target", [1, 100, 3000, 10**9])
def test_parts_of_a_jsonl_file_are_all_of_it(tmp_path: Path, target: int):
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    parts = extents(path, target)
    assert [d.text for part in parts for d in read(path, part)] == TEXTS
    edges = [edge for part in parts if part for edge in part]
    assert edges[0] == 0
    assert edges[-1] == path.stat().st_size
    assert edges[1:-1:2] == edges[2::2]


@pytest.mark.parametrize("target", [1, 4000, 10**9])
def test_parts_of_a_parquet_file_are_all_of_it(tmp_path: Path, target: int):
    path = write_parquet(tmp_path / "a.parquet", TEXTS)
    parts = extents(path, target)
    assert len(parts) == {1: 9, 10**9: 1}.get(target, len(parts))
    found = [row for part in parts for row in rows(path, part)]
    assert found == [(f"{path}: row {i}", {"text": text}) for i, text in enumerate(TEXTS)]


def test_a_line_is_in_the_part_in_which_it_begins(tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS[:4])
    starts = [0, *(i + 1 for i, byte in enumerate(path.read_bytes()) if byte == 10)]
    for first in range(4):
        for last in range(first, 5):
            got = [d.text for d in read(path, (starts[first], starts[last]))]
            assert got == TEXTS[first:last]
            inside = [d.text for d in read(path, (max(0, starts[first] - 1), starts[last]))]
            assert inside == got


def test_licenses_come_along(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "license": "CC0"}\n{"text": "b"}\n{"text": "c", "license": null}')
    assert [(d.text, d.license) for d in documents([path])] == [("a", "CC0"), ("b", ""), ("c", "")]
    path = write_parquet(tmp_path / "a.parquet", ["a", "b"], license=["MIT", None], other=[1, 2])
    assert [(d.text, d.license) for d in documents([path])] == [("a", "MIT"), ("b", "")]


def test_files_of_other_kinds_are_counted(tmp_path: Path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("a.txt", "a.html", "deep/b.html", "c.csv", "LICENSE", ".hidden.csv"):
        (tmp_path / "in" / name).write_text("text")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    expected = {".html": 2, ".csv": 1, "without extension": 1, "link to a folder": 1}
    assert others([tmp_path / "i*"], SUFFIXES) == expected
    assert others([tmp_path / "in" / "a.txt"], SUFFIXES) == {}


def test_bad_rows_are_told_and_the_others_read(tmp_path: Path):
    lines = [
        b'{"text": "one"}',
        b'{"text": "cut',
        b"[1, 2]",
        '{"text": "汉"}'.encode("gbk"),
        b'{"text": "\\ud800"}',
        b'{"body": "x"}',
        b"[" * 100_000,
        b"",
        b'{"text": "two"}',
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    bad: list[tuple[DataError, str]] = []
    assert [d.text for d in read(path, on_bad=lambda e, s: bad.append((e, s)))] == ["one", "two"]
    assert [error.where.split("jsonl:")[1][0] for error, _ in bad] == list("234567")
    assert bad[0][1] == '{"text": "cut'
    assert all(len(start) <= 200 and error.what for error, start in bad)
    with pytest.raises(DataError, match="not a JSON object"):
        list(read(path))


def test_a_line_too_long_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("growlm.data.reading.rows.LINE_BYTES", 64)
    path = write_jsonl(tmp_path / "a.jsonl", ["a", "b" * 500, "c"])
    bad: list[str] = []
    assert [d.text for d in read(path, on_bad=lambda e, _: bad.append(e.where))] == ["a", "c"]
    assert bad == [f"{path}:2"]


def test_rows_of_running_text_are_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text(json.dumps({"text": "a"}))
    with pytest.raises(DataError, match="Examples are rows"):
        list(rows(tmp_path / "a.txt"))
