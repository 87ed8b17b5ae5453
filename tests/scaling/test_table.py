"""Tables as people write them, and one clear error for each way in which they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from growlm.errors import DataError
from growlm.scaling.columns import match_columns, number
from growlm.scaling.table import read_table


def write(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (["N", "D", "L"], {"n": ("N", 1), "d": ("D", 1), "loss": ("L", 1)}),
        (["Model Size", "Training FLOP", "loss"], {"n": ("Model Size", 1), "c": ("Training FLOP", 1)}),
        (["params_M", "width", "train_loss"], {"n": ("params_M", 1e6), "loss": ("train_loss", 1)}),
        (["Params (B)", "Tokens (T)", "val_loss"], {"n": ("Params (B)", 1e9), "d": ("Tokens (T)", 1e12)}),
        (["params_active_precise", "tokens", "final_loss"], {"n": ("params_active_precise", 1)}),
        (["train_loss", "valLoss"], {"loss": ("valLoss", 1)}),
        (["N", "L", "loss"], {"loss": ("loss", 1)}),
        (["n_params", "n_nonembedding", "loss"], {"n": ("n_nonembedding", 1)}),
        (["N", "tokens_per_param", "loss"], {"tpp": ("tokens_per_param", 1)}),
    ],
)
def test_columns_are_found_by_their_names(headers: list[str], found: dict[str, tuple[str, float]]) -> None:
    assert found.items() <= match_columns(headers, {}).items()


def test_numbers_as_people_write_them() -> None:
    assert [number(t) for t in ("125M", "1.5B", "2e9", "1,000", "3k", " 7 ")] == [
        125e6, 1.5e9, 2e9, 1000, 3000, 7,
    ]  # fmt: skip


def test_the_same_rows_as_csv_tsv_json_and_json_lines(tmp_path: Path) -> None:
    rows = [{"N": 1e8, "D": 2e9, "loss": 3.1}, {"N": 2e8, "D": 2e9, "loss": 3.0}]
    lines = [",".join(rows[0])] + [",".join(str(v) for v in r.values()) for r in rows]
    tables = [
        read_table(write(tmp_path, "\n".join(lines))),
        read_table(write(tmp_path, "\n".join(lines).replace(",", "\t"), "t.tsv")),
        read_table(write(tmp_path, json.dumps(rows), "t.json")),
        read_table(write(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl")),
    ]
    for t in tables:
        assert {k: v.tolist() for k, v in t.columns.items()} == {
            "n": [1e8, 2e8], "d": [2e9, 2e9], "loss": [3.1, 3.0], "c": [1.2e18, 2.4e18],
        }  # fmt: skip


def test_flops_and_tokens_per_parameter_become_tokens(tmp_path: Path) -> None:
    by_flops = read_table(write(tmp_path, "size,flops,loss\n1e8,1.2e18,3\n2e8,2.4e18,2.9"))
    by_ratio = read_table(write(tmp_path, "size,tpp,loss\n1e8,20,3\n2e8,10,2.9"))
    assert np.array_equal(by_flops["d"], [2e9, 2e9])
    assert np.array_equal(by_ratio["d"], [2e9, 2e9])


def test_a_mapping_comes_first(tmp_path: Path) -> None:
    path = write(tmp_path, "N,how_big,err\n1,1e8,3\n2,2e8,2.9")
    assert read_table(path, {"n": "how_big", "loss": "err"})["n"].tolist() == [1e8, 2e8]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no rows"),
        ("N,loss\n", "no rows"),
        ("N,D\n1e8,2e9\n", "no column of losses"),
        ("N,loss\n1e8,nan\n", "'nan' is not a positive number"),
        ("N,loss\n1e8,abc\n", "'abc' is not a positive number"),
        ("N,loss\n-1e8,3\n", "'-1e8' is not a positive number"),
        ("N,loss\n0,3\n", "'0' is not a positive number"),
        ("N,loss\n1e8,inf\n", "'inf' is not a positive number"),
        ("N,loss\n,3\n", "'' is not a positive number"),
        ("N,loss\n1e8,\n", "no row has a loss"),
        ("N,depth,loss\n1e8,x,-3\n", "'-3' is not a positive number"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError) as raised:
        read_table(write(tmp_path, text))
    assert words in raised.value.what
    assert "t.csv" in raised.value.where


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="this is no table"):
        read_table(write(tmp_path, "root:x:0:0:root:/root:/bin/bash\nlist:x:38:Lists, news:/var"))
    with pytest.raises(DataError, match="this is no table"):
        read_table(write(tmp_path, "some words\nmore words\n"))


def test_bad_files_and_mappings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="damaged"):
        read_table(write(tmp_path, '{"N": 1', "t.jsonl"))
    with pytest.raises(DataError, match="no column 'x'"):
        read_table(write(tmp_path, "N,loss\n1,2"), {"n": "x"})
    with pytest.raises(DataError, match="'size' is no meaning"):
        read_table(write(tmp_path, "N,loss\n1,2"), {"size": "N"})


def test_rows_without_a_loss_and_rows_that_repeat_are_left_out_with_a_note(tmp_path: Path) -> None:
    t = read_table(write(tmp_path, "N,loss\n1e8,3\n1e8,3\n2e8,\n3e8,2.8"))
    assert t["n"].tolist() == [1e8, 3e8]
    assert len(t.notes) == 2


def test_counts_without_a_unit_and_unknown_headers_are_doubted(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("size,toks,loss\n5,1,3.0\n10,2,2.9\n160,4,2.5\n", encoding="utf-8")
    notes = " ".join(read_table(file).notes)
    assert "at most 160" in notes
    assert "size (M)" in notes
    assert "not read: toks" in notes
    file.write_text("size (M),tokens,loss\n5,1e9,3.0\n10,1e9,2.9\n160,1e9,2.5\n", encoding="utf-8")
    assert read_table(file).notes == ()
