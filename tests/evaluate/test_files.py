"""Finding evaluation data in a folder."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from growlm.errors import DataError
from growlm.evaluate.files import Folder, read_rows

ROWS = [{"question": "é?", "label": "1"}, {"question": "二", "label": "0"}]
LINES = "\n".join(json.dumps(row) for row in ROWS)


@pytest.mark.parametrize(
    "name",
    ["boolq-val.jsonl", "BoolQ/val.json", "superglue/boolq_val.jsonl.gz", "boolq/val-00000-of-00001.jsonl"],
)
def test_one_name_finds_the_spellings_of_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = LINES.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    folder = Folder(tmp_path)
    assert folder.find("boolq-validation", "boolq-val") == path
    assert folder.find("q-val") is None
    assert read_rows(path) == ROWS


def test_all_forms_hold_the_same_rows(tmp_path: Path) -> None:
    forms = {
        "a.jsonl": LINES,
        "b.json": json.dumps(ROWS, indent=1),
        "c.json": LINES,
        "d.csv": "question,label\né?,1\n二,0\n",
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text, "utf-8")
        assert read_rows(tmp_path / name) == ROWS, name


def test_bad_input_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such folder"):
        Folder(tmp_path / "none")
    (tmp_path / "x.json").write_text('{"a": 1}\n[2]\n', "utf-8")
    with pytest.raises(DataError, match=r"x\.json:2"):
        read_rows(tmp_path / "x.json")
    (tmp_path / "y.jsonl").write_text('{"a": 1}\n{"a"\n', "utf-8")
    with pytest.raises(DataError, match=r"y\.jsonl:2"):
        read_rows(tmp_path / "y.jsonl")
    (tmp_path / "x.csv").write_text("a\n1\n", "utf-8")
    with pytest.raises(DataError, match="More than one file"):
        Folder(tmp_path).find("x")


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.csv", 'question,label\né?,1\n"' + "never closed " * 12_000, "a.csv:3"),
        ("a.json", "[\n{},\n{]", "a.json:3"),
        ("a.json", '{"a": 1}\n' + "[" * 100_000, "a.json:2"),
        ("a.json", "[" * 100_000, "a.json:1"),
        ("a.json", "[" + "1" * 5_000 + "]", "a.json:1"),
        ("a.jsonl", '{"q": "a"}\n{"q": ["\\ud83d"]}\n', "a.jsonl:2"),
    ],
    ids=["quote", "list", "deep line", "deep list", "long number", "surrogate"],
)
def test_damaged_text_is_said_with_its_place(tmp_path: Path, name: str, text: str, place: str) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match="A row cannot be read") as raised:
        read_rows(tmp_path / name)
    assert raised.value.where.endswith(place)
