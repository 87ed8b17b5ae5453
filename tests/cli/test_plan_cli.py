"""`growlm plan`: text, JSON, without torch, and every wrong use as one error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from growlm.plan.machines import load_machines
from growlm.plan.run_plan import plan_recipe, setting_of
from growlm.recipe.load import load_recipe
from tests.cli.run_cli import ONE, growlm, train_four_steps


def test_the_text_says_what_is_spent_and_what_was_assumed() -> None:
    done = growlm("plan", "flm-101b", "--gpus", "a800", "--mfu", "0.519,0.513,0.5288")
    assert done.code == 0, done.err
    for part in (
        "flm-101b on 192 x A800 SXM 80GB",
        "24 x 4 x 2",
        "21.50 days",
        "53.87 zettaFLOPs of the model, attention over the whole square",
        "84 +- 12",
        "g/kWh (world)",
        "77.15 days",
        "MFU as given",
        "a price of 2026",
    ):
        assert part in done.out


def test_json_is_the_plan() -> None:
    done = growlm(
        "plan", "laptop", "--gpus", "2xl40s", "--price", "1.5", "--grid", "fra", "--layouts", "--json"
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    recipe, machines = load_recipe("laptop"), load_machines()
    setting = setting_of(recipe, machines, "2xl40s", price_per_hour=1.5, grid="FRA")
    plan = plan_recipe(recipe, machines, setting)
    assert found["total"]["money"] == plan.total.money == pytest.approx(plan.total.gpu_hours * 1.5)
    assert found["total"]["co2_kg"] == plan.total.co2_kg
    assert [stage["step"]["seconds"] for stage in found["stages"]] == [s.step.seconds for s in plan.stages]
    assert len(found["layouts"]) == 3
    assert found["layouts"][0]["fits"][0]["layout"]["dp"] == 2


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['growlm', 'plan', 'laptop', '--layouts']\n"
        "from growlm.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def test_a_finished_run_says_how_fast_the_next_one_is(tmp_path: Path) -> None:
    recipe = train_four_steps(tmp_path)
    machines = tmp_path / "machines.toml"
    machines.write_text("[gpus.cpu]\npeak_tflops = 100.0\n", encoding="utf-8")
    options = ("--gpus", "1xcpu", "--machines", machines, "--set", ONE, "--json")
    done = growlm("plan", recipe, "--measured", tmp_path / "run", *options)
    assert done.code == 0, done.err
    planned = json.loads(done.out)["stages"][0]["step"]["seconds"]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = [r["step_seconds"] for r in map(json.loads, lines) if r["kind"] == "step"]
    assert min(seconds) <= planned <= max(seconds), "whatever the peak of the table is"


WRONG = [
    (("laptop", "--gpus", "0xh100"), "not a number of GPUs"),
    (("laptop", "--gpus", "3xh1000"), "no GPU is called"),
    (("laptop", "--gpus", "h100", "--grid", "Mars"), "no grid is called"),
    (("laptop", "--mfu", "45"), "is not a share"),
    (("laptop", "--mfu", "0.4,0.5"), "2 MFUs for 3 stages"),
    (("laptop", "--mfu", "0.4", "--measured", "nowhere"), "twice"),
    (("laptop", "--measured", "nowhere"), "nowhere"),
    (("laptop", "--machines", "nowhere.toml"), "cannot be read"),
    (("laptop", "--gpus", "11xh100"), "not a multiple of dp 11"),
    (("flm-101b", "--gpus", "8xh100"), "over 192 ranks"),
    (("laptop", "--days", "3"), "--days"),
    (("laptop", "--searched", "nowhere"), "not the folder of a finished search"),
    (("--gpus", "4xh100", "--days", "3", "--layouts"), "--layouts"),
    ((), "no recipe to plan"),
]


@pytest.mark.parametrize(("arguments", "what"), WRONG)
def test_a_wrong_use_is_one_error(arguments: tuple[str, ...], what: str) -> None:
    done = growlm("plan", *arguments)
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert what in done.err
    assert "Traceback" not in done.err


def test_a_search_is_counted_apart(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"cost": {"flops": 1e13}}', encoding="utf-8")
    plain, more = (growlm("plan", "laptop", *args, "--json") for args in ((), ("--searched", tmp_path)))
    assert json.loads(more.out) == json.loads(plain.out) | {"search_flops": 1e13}


def test_what_does_not_fit_is_said() -> None:
    settings = ("stages.2.layout={ dp = 1, tp = 4, pp = 2 }", "stages.0.layout=auto", "stages.1.layout=auto")
    sets = [word for setting in settings for word in ("--set", setting)]
    done = growlm("plan", "flm-101b", "--gpus", "8xb200", *sets)
    assert done.code == 0, done.err
    assert "101b DOES NOT FIT" in done.out
