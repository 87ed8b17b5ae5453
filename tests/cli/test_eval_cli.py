"""eval context, eval table, and tasks of a training as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run_cli import ONE, growlm, train_four_steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eval")
    train_four_steps(folder)
    return folder


def test_context_then_table(folder: Path) -> None:
    out = folder / "out"
    asked = ("--data", folder / "data", "--windows", 3, "--out", out)
    measured = growlm("eval", "context", folder / "run", *asked)
    assert measured.code == 0
    assert measured.err.startswith("run: 3 of 3 windows")
    assert "Perplexity of run, trained on 16 tokens, RoPE" in measured.out
    assert {path.name for path in out.iterdir()} == {"run", "evaluation.html", "context.svg"}
    (out / "evaluation.html").unlink()
    table = growlm("eval", "table", out, "--json")
    (context,) = json.loads(table.out)["contexts"]
    assert context["by_length"]["end"] == [4, 8, 16, 32, 64]
    assert (out / "evaluation.html").is_file()


def test_what_is_not_there_exits_2(folder: Path, tmp_path: Path) -> None:
    nothing = growlm("eval", "table", tmp_path)
    assert (nothing.code, nothing.out) == (2, "")
    assert "growlm eval iq MODEL" in nothing.err
    source = growlm("eval", "context", folder / "run", "--data", folder / "data", "--source", "fr")
    assert (source.code, "one of: en, zh" in source.err) == (2, True)


def test_a_training_with_an_unknown_task_exits_2_before_it_starts(folder: Path, tmp_path: Path) -> None:
    tasks = ("--set", ONE, "--set", "eval.tasks=['countin']")
    done = growlm("train", folder / "tiny.toml", "--run", tmp_path / "run", *tasks)
    assert done.code == 2
    assert "write 'counting'" in done.err
    assert not (tmp_path / "run").exists()
