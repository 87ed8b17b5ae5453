"""`growlm plan` for a budget: one command answers with a schedule, a recipe and a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.cli.run_cli import growlm

BUDGET = ("plan", "--gpus", "4xh100", "--days", "14", "--price", "2.5", "--min-params", "3B")


def test_the_users_question_is_answered_by_one_command(tmp_path: Path) -> None:
    recipe, picture = tmp_path / "my.toml", tmp_path / "my.svg"
    done = growlm(*BUDGET, "--tokens-stock", "1T", "--out", str(recipe), "--picture", str(picture))
    assert done.code == 0, done.err
    for part in (
        "4 x H100 SXM 80GB, 14.0 days: 1,344 GPU-hours, 3,360 USD at 2.5",
        "Verdict: run this pilot first",
        "Predicted loss",
        "equal tokens",
        "Hoffmann",
        "Growing pays if rho is",
        f"wrote {recipe}",
    ):
        assert part in done.out
    assert ET.fromstring(picture.read_text(encoding="utf-8")).tag.endswith("svg")
    again = growlm(*BUDGET, "--out", str(recipe))
    assert (again.code, "exists already" in again.err) == (2, True)


@pytest.mark.slow  # builds every stage without memory
def test_the_recipe_is_ready_to_run(tmp_path: Path) -> None:
    recipe = tmp_path / "my.toml"
    assert growlm(*BUDGET, "--out", str(recipe)).code == 0
    tried = growlm("train", str(recipe), "--dry-run", "--ranks", "4", "--memory", "80GB")
    assert tried.code == 0, tried.err
    assert "3 stages over 4 ranks" in tried.out


def test_json_has_every_part() -> None:
    done = growlm(*BUDGET, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {"verdict", "schedule", "speed_ups", "static", "budgets", "sensitivity", "pilot"} <= set(found)
    assert found["schedule"]["money"] == pytest.approx(3360)


def test_a_recipe_that_grows_is_told_what_growing_is_worth() -> None:
    """By the days of the paper: 3.56 times as fast at equal tokens, and 1.6 to 2 times at equal loss."""
    mfu = ("--mfu", "0.4729,0.4369,0.4794", "--goodput", "1")
    done = growlm("plan", "flm-101b", "--gpus", "192xa800", *mfu, "--json")
    assert done.code == 0, done.err
    growth = {entry["law"]: entry for entry in json.loads(done.out)["growth"]}
    low, _ = growth["Epoch"]["speed_ups"]
    assert low["equal_tokens"] == pytest.approx(3.6, abs=0.1)
    assert low["equal_loss"] == pytest.approx(1.66, abs=0.1)
    assert growth["Hoffmann"]["optimal_params"] == pytest.approx(10.8e9, rel=0.05)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--days", "-1"), "not an amount above 0"),
        (("--days", "14", "--min-params", "3Q"), "3B"),
        (("--days", "1", "--min-params", "70B"), "smaller --min-params"),
        ((), "no budget"),
        (("--days", "1", "--pilot", "nowhere"), "not the folder of a run"),
    ],
    ids=["negative", "unit", "too-large", "none", "no-run"],
)
def test_what_is_wrong_is_one_error_that_says_what_to_change(options: tuple[str, ...], word: str) -> None:
    done = growlm("plan", "--gpus", "4xh100", *options)
    assert done.code == 2
    assert word in done.err
    assert "Traceback" not in done.err
