"""`growlm data signals` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.run_cli import growlm
from tests.data.signals.rows import nli_rows, write_rows


def test_signals_prints_what_became_of_every_item(tmp_path: Path) -> None:
    rows = nli_rows((5, 7), ("entailment", "not_entailment"))
    other = {"entailment": "not_entailment", "not_entailment": "entailment"}
    path = write_rows(
        tmp_path / "rte.jsonl", [*rows, rows[1], {**rows[0], "label": other[rows[0]["label"]]}, {}]
    )
    out = tmp_path / "out.jsonl"
    call = ("data", "signals", out, "--task", f"rte={path}")
    done = growlm(*call)
    assert done.code == 0
    for words in (
        "1 copy",
        "2 contradiction",
        "rte.jsonl:1 and rte.jsonl:14",
        "1 malformed",
        "alone",
        str(out),
    ):
        assert words in done.out
    first = out.read_bytes()
    assert growlm(*call).code == 2  # not replaced unasked
    told = json.loads(growlm(*call, "--force", "--json", "--pairs", 2).out)
    assert told["bad_rows"] == 1
    assert told["tasks"][0]["true"] == told["tasks"][0]["false"]
    assert out.read_bytes() != first
    lines = out.read_text("utf-8").splitlines()
    assert len(lines) == told["tasks"][0]["true"] * 2


def test_wrong_flags_say_what_to_write(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rte.jsonl", nli_rows((2, 2), ("entailment", "not_entailment")))
    for arguments, words in (
        ((tmp_path / "out.txt", "--task", f"rte={path}"), "OUT.jsonl"),
        ((tmp_path / "out.jsonl", "--task", str(path)), "--task rte=PATH"),
        ((tmp_path / "out.jsonl", "--task", f"rtf={path}"), "did you mean 'rte'"),
        ((tmp_path / "out.jsonl", "--task", f"rte={path}", "--license", "MIT"), "--license rte=CC0"),
        (
            (tmp_path / "out.jsonl", "--task", f"rte={path}", "--tasks", tmp_path / "no.toml"),
            "cannot be read",
        ),
    ):
        done = growlm("data", "signals", *arguments)
        assert (done.code, words in done.err) == (2, True), done.err
    assert growlm("data", "signals", tmp_path / "out.jsonl", "--task", "rte=missing").code == 65
    assert [file.name for file in tmp_path.iterdir()] == ["rte.jsonl"]
