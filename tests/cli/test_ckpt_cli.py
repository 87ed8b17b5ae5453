import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from growlm.checkpoint.store import CheckpointStore
from growlm.cli.ckpt import app
from growlm.errors import CheckpointError

FIELDS = {
    **dict.fromkeys(("recipe_hash", "data_fingerprint", "tokenizer_hash"), ""),
    **dict.fromkeys(("stage", "stage_step", "updates", "skipped", "train_seconds", "flops", "mask"), 1),
    **{name: {} for name in ("births", "guard", "environment")},
    "tokens": 4096,
    "model": {"d_model": 8},
    "lineage": [],
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with steps 1 and 2, and the grown side of 2."""
    store = CheckpointStore(tmp_path / "checkpoints", keep=3)
    for step, boundary in ((1, None), (2, "before_growth"), (2, "after_growth")):
        with store.begin(step) as pending:
            pending.path("notes.json").write_text("12345")
            pending.commit(boundary=boundary, **FIELDS)
    return tmp_path


def call(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if isinstance(result.exception, Exception) and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_list(run: Path) -> None:
    code, out = call("list", run)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [
        "step-00000002-grown",
        "step-00000002",
        "step-00000001",
    ]
    assert "4,096 tokens" in out
    assert out.splitlines()[0].endswith("after growth")
    code, out = call("list", run / "checkpoints", "--json")
    rows = json.loads(out)
    assert [(row["step"], row["boundary"], row["bytes"], row["model"]) for row in rows] == [
        (2, "after_growth", 5, {"d_model": 8}),
        (2, "before_growth", 5, {"d_model": 8}),
        (1, None, 5, {"d_model": 8}),
    ]


def test_verify_whole_and_damaged(run: Path) -> None:
    assert call("verify", run) == (
        0,
        "".join(f"{n:<22} ok\n" for n in ("step-00000002-grown", "step-00000002", "step-00000001")),
    )
    os.truncate(run / "checkpoints" / "step-00000002" / "notes.json", 2)
    code, out = call("verify", run)
    assert code == 65
    assert "notes.json: 2 bytes long, 5 were saved" in out.splitlines()[1]
    code, out = call("verify", run, "--json")
    assert code == 65
    assert [bool(row["problems"]) for row in json.loads(out)] == [False, True, False]
    assert call("verify", run / "checkpoints" / "step-00000001")[0] == 0


def test_a_damaged_manifest_is_listed_as_such(run: Path) -> None:
    (run / "checkpoints" / "step-00000002" / "manifest.json").write_text("{}")
    code, out = call("list", run)
    assert code == 0
    assert "damaged: its hash does not match" in out.splitlines()[1]
    assert "problem" in json.loads(call("list", run, "--json")[1])[1]


def test_nothing_there(tmp_path: Path) -> None:
    assert call("list", tmp_path) == (0, "no checkpoint yet\n")
    assert call("verify", tmp_path, "--json") == (0, "[]\n")
    with pytest.raises(CheckpointError, match="no such folder"):
        call("list", tmp_path / "absent")
