"""`growlm predict` as a user runs it: tables, run folders, recipes, pictures, and errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from growlm.recipe.load import load_recipe
from growlm.testing.tiny import write_recipe
from growlm.train.record import Recorder
from growlm.train.stored import RECIPE_NAME
from tests.cli.run_cli import growlm


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [f"{n:.6g},{2.5 + 300 * n**-0.35:.5f}" for n in np.geomspace(1e7, 3e8, 8)]
    path = tmp_path_factory.mktemp("t") / "sizes.csv"
    path.write_text("\n".join(["params,loss", *rows]), encoding="utf-8")
    return path


def test_a_table_as_text_json_and_picture(table: Path, tmp_path: Path) -> None:
    shown = growlm("predict", table, "--target", "3B")
    assert shown.code == 0
    assert "Predicted loss 2.64" in shown.out
    done = growlm("predict", table, "--target", "3B", "--json", "--out", tmp_path / "p.svg")
    (found,) = json.loads(done.out)
    assert found["loss"] == pytest.approx(2.5 + 300 * 3e9**-0.35, rel=1e-3)
    assert found["low"] < found["loss"] < found["high"]
    assert found["extrapolation"]["n"] == pytest.approx(10)
    assert found["laws"][0]["name"] == "size"
    assert (tmp_path / "p.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_table_of_targets_shows_what_was_measured(table: Path, tmp_path: Path) -> None:
    targets = tmp_path / "targets.csv"
    targets.write_text("params,loss\n1e9,2.7\n3e9,\n", encoding="utf-8")
    done = growlm("predict", table, "--target", targets, "--json")
    first, second = json.loads(done.out)
    assert (first["measured"], second["measured"]) == (2.7, None)
    assert first["target"]["n"] == 1e9


def stage(width: int) -> str:
    return (
        f"stages=[{{name = 'only', d_model = {width}, n_heads = {width // 8}, d_ff = {2 * width},"
        " n_layers = 1, tokens = 5120, seq_len = 16, batch_size = 8}]"
    )


def write_run(folder: Path, width: int, last: int = 40) -> Path:
    """A finished run of 40 steps as far as its record tells."""
    folder.mkdir()
    recipe = load_recipe(write_recipe(folder / "tiny.toml", folder / "data"), [stage(width)])
    (folder / RECIPE_NAME).write_text(recipe.model_dump_json(), encoding="utf-8")
    with Recorder(folder / "metrics.jsonl", 1) as recorder:
        for step in range(1, last + 1):
            recorder.append(
                "step", step=step, stage=0, tokens=128 * step, loss=5 - 0.01 * step, lr=1e-3, applied=True
            )
        loss = 3 + 40 * float(width) ** -1
        recorder.append("valid", step=last, stage=0, tokens=128 * last, losses={"en": loss, "zh": loss + 1})
    return folder


def test_runs_predict_a_recipe(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"w{width}", width) for width in (16, 24, 32, 48, 64)]
    target = write_recipe(tmp_path / "big.toml", tmp_path / "data")
    text = target.read_text(encoding="utf-8").split("[[stages]]")[0]
    target.write_text(
        text + "[[stages]]\nname = 'only'\nd_model = 128\nn_heads = 16\nd_ff = 256\nn_layers = 1\n"
        "tokens = 5120\nseq_len = 16\nbatch_size = 8\n",
        encoding="utf-8",
    )
    done = growlm("predict", *runs, "--target", target, "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)
    mixed = (53.5 * 0 + 46.5 * 1) / 100
    assert found["loss"] == pytest.approx(3 + 40 / 128 + mixed, rel=0.02)
    assert found["target"]["width"] == 128
    assert any("not decayed" in w for w in found["warnings"])


def test_runs_predict_a_finished_run_and_are_compared_with_it(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"w{width}", width) for width in (16, 24, 32, 48, 64)]
    target = write_run(tmp_path / "target", 128)
    actual = 3 + 40 / 128 + 0.465
    (found,) = json.loads(growlm("predict", *runs, runs[0], "--target", target, "--json").out)
    assert found["measured"] == pytest.approx(actual)
    assert (found["points"], found["target"]["d"], found["target"]["width"]) == (5, 5120, 128)
    assert "repeats another" in found["warnings"][-1]
    shown = " ".join(growlm("predict", *runs, "--target", target).out.split())
    error = 100 * (found["loss"] / actual - 1)
    assert f"Measured {actual:.4f}: the prediction is {error:+.2f} % off, inside its interval" in shown
    (curve,) = json.loads(growlm("predict", *runs, "--target", target, "--law", "annealing", "--json").out)
    assert curve["measured"] == pytest.approx(4.6)


def test_sources_that_are_no_use(tmp_path: Path) -> None:
    run = write_run(tmp_path / "w16", 16)
    done = growlm("predict", run, "--target", run)
    assert (done.code, "a run cannot predict itself" in done.err) == (2, True)
    done = growlm("predict", run / "tiny.toml", "--target", "1B")
    assert (done.code, "name it as --target" in done.err) == (2, True)


def test_runs_that_are_no_use(tmp_path: Path) -> None:
    early = write_run(tmp_path / "early", 16, last=30)
    done = growlm("predict", early, "--target", "1B")
    assert (done.code, "this run is not finished" in done.err) == (65, True)
    (tmp_path / "empty").mkdir()
    done = growlm("predict", tmp_path / "empty", "--target", "1B")
    assert (done.code, "this is no run" in done.err) == (65, True)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("big", "is no target"),
        ("n=-1", "is no target"),
        ("m=3", "is no target"),
        ("n=1e9,d", "cannot be read"),
        ("d=1e9", "no law fits"),
    ],
)
def test_bad_targets(table: Path, target: str, words: str) -> None:
    done = growlm("predict", table, "--target", target)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err


def test_it_does_not_import_torch(table: Path) -> None:
    code = (
        "import sys; from growlm.report.predict import predictions; from pathlib import Path;"
        f"predictions([Path({str(table)!r})], ['3B']); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
