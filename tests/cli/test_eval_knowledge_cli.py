"""`growlm eval knowledge` as a user's shell runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from tests.cli.run_cli import growlm
from tests.evaluate.knowledge.sets import ARC, write
from tests.evaluate.llama import save_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("knowledge")
    write(path / "data" / "arc-challenge-test.jsonl", ARC)
    (path / "model").mkdir()
    save_llama(path / "model")
    return path


def test_a_model_is_evaluated_and_shown(folder: Path) -> None:
    data, out = folder / "data", folder / "out"
    done = growlm("eval", "knowledge", folder / "model", "--data-dir", data, "--limit", 4, "--out", out)
    assert done.code == 0, done.err
    assert "arc_challenge: 6 rows, the official set has 1,172" in done.err
    assert "Building contexts" not in done.err
    assert "arc_challenge" in done.out
    told = json.loads((out / "model" / "knowledge" / "results.json").read_text("utf-8"))
    assert {score["items"] for score in told["scores"]} == {4}
    assert (out / "evaluation.html").exists()
    answers = (out / "model" / "knowledge" / "answers.jsonl").read_text("utf-8")
    again = growlm(
        "eval", "knowledge", folder / "model", "--data-dir", data, "--limit", 4, "--out", out, "--json"
    )
    assert (out / "model" / "knowledge" / "answers.jsonl").read_text("utf-8") == answers
    assert json.loads(again.out)["groups"]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--task", "helaswag"], 2, "did you mean 'hellaswag'?"),
        (["--task", "hellaswag"], 65, "no file there is called like hellaswag-validation.jsonl"),
        (["--limit", "0"], 2, "--limit"),
    ],
)
def test_what_cannot_be_asked(folder: Path, options: list[str], code: int, said: str) -> None:
    done = growlm("eval", "knowledge", folder / "model", "--data-dir", folder / "data", *options)
    assert done.code == code
    assert said in done.err
    assert "Traceback" not in done.err
