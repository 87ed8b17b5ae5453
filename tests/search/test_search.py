"""`growlm search` as a command, with real runs on the tiny corpus, also killed at its worst moments."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from growlm.data.prepare import prepare
from growlm.recipe.load import load_recipe
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.record import read_record
from tests.cli.run_cli import Done, growlm

GRID = ("--search", "optim.lr=2^-8..2^-5", "--search", "model.init_std=0.02,0.04", "--seeds", 1, "--force")
SMALL = ("--stage", "small", "--tokens", 1024)  # 8 steps of the smallest shape


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe, with prepared data."""
    folder = tmp_path_factory.mktemp("search")
    prepare(folder / "data", write_corpus(folder / "text"), vocab_size=VOCABULARY, validation_share=0.1)
    return write_recipe(folder / "tiny.toml", folder / "data")


def search(recipe: Path, out: Path, *options: object, fault: str = "") -> Done:
    return growlm("search", recipe, "--out", out, *SMALL, *options, fault=fault)


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())


def losses(out: Path) -> dict[tuple[float, float, int], float]:
    """Loss of every trial that is done, by its values and seed."""
    found = {}
    for trial in result(out)["trials"]:
        key = (trial["values"]["optim.lr"], trial["values"]["model.init_std"], trial["seed"])
        assert key not in found, "a point was done twice"
        assert trial["state"] == "done"
        found[key] = trial["loss"]
    return found


@pytest.fixture(scope="module")
def straight(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid, never interrupted, two trials at a time."""
    out = tmp_path_factory.mktemp("straight") / "search"
    done = search(recipe, out, *GRID, "--pruner", "none", "--workers", 2)
    assert done.code == 0, done.err
    return out


def test_two_workers_do_every_point_once_and_each_trial_is_an_ordinary_run(straight: Path) -> None:
    done = losses(straight)
    assert set(done) == {(2.0**n, std, 7) for n in range(-8, -4) for std in (0.02, 0.04)}
    for trial in result(straight)["trials"]:
        records = read_record(straight / "trials" / f"{trial['number']:04d}" / "metrics.jsonl")
        assert records[-1]["kind"] == "end"
        assert records[-1]["status"] == "done"
        steps = [r for r in records if r["kind"] == "step"]
        assert len(steps) == 8
        assert steps[0]["lr"] == pytest.approx(trial["values"]["optim.lr"], rel=1e-9)
        assert trial["curve"].keys() == {str(128 * n) for n in range(1, 9)}
        last = [r for r in records if r["kind"] == "valid"][-1]["losses"]
        assert trial["loss"] == pytest.approx((53.5 * last["en"] + 46.5 * last["zh"]) / 100, rel=1e-12)
        assert trial["flops"] == steps[-1]["flops"]


def test_the_result_says_what_was_found_and_what_it_cost(straight: Path) -> None:
    facts, done = result(straight), losses(straight)
    best = min(done, key=done.__getitem__)
    assert facts["best"]["values"] == {"optim.lr": best[0], "model.init_std": best[1]}
    cost, trials = facts["cost"], facts["trials"]
    assert cost["flops"] == sum(t["flops"] for t in trials) == pytest.approx(8 * facts["proxy"]["flops"])
    assert cost["seconds"] == pytest.approx(sum(t["seconds"] for t in trials))
    assert "tokens" in facts["protocol"]
    assert (straight / "loss.svg").read_text().startswith("<svg")
    assert "within the noise" not in (straight / "report.md").read_text()


def test_the_transferred_recipe_is_the_targets_with_the_values_found(recipe: Path, straight: Path) -> None:
    target, found = load_recipe(recipe), load_recipe(straight / "recipe.toml")
    values = result(straight)["chosen"]["values"]
    factor = values["optim.lr"] / target.optim.lr
    assert found.optim.lr == pytest.approx(values["optim.lr"])
    assert found.model.init_std == values["model.init_std"]
    assert found.stages[2].lr == pytest.approx((target.stages[2].lr or 0) * factor)
    assert (found.model.mup_base_d_model, found.model.mup_base_n_layers) == (16, 1), "the first stage's"
    proxy = load_recipe(straight / "proxy.toml")
    for index in range(len(target.stages)):
        shape, before = found.model_config_of(index), target.model_config_of(index)
        assert shape == before.with_(init_std=values["model.init_std"])
        assert shape.mup_base_d_model == proxy.model_config_of(0).mup_base_d_model
    head = (straight / "recipe.toml").read_text().partition("# A GrowLM recipe")[0]
    assert all(name in head for name in (*values, "was 0.005", "stages.clone.lr"))


@pytest.mark.parametrize(
    "fault", ["search.before_finish:kill@2", pytest.param("search.after_take:kill@3", marks=pytest.mark.slow)]
)
def test_killed_and_given_again_it_loses_no_point_and_repeats_none(
    fault: str, recipe: Path, straight: Path, tmp_path: Path
) -> None:
    command = (*GRID, "--pruner", "none", "--workers", 2)
    assert search(recipe, tmp_path, *command, fault=fault).code == -signal.SIGKILL
    done = search(recipe, tmp_path, *command)
    assert done.code == 0, done.err
    assert losses(tmp_path) == losses(straight)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["after_queue", "after_take", "before_finish", "after_finish"])
@pytest.mark.parametrize("passage", [1, 5, 8])
def test_killed_at_any_point(point: str, passage: int, recipe: Path, straight: Path, tmp_path: Path) -> None:
    command = (*GRID, "--pruner", "none", "--workers", 2)
    assert search(recipe, tmp_path, *command, fault=f"search.{point}:kill@{passage}").code == -signal.SIGKILL
    assert search(recipe, tmp_path, *command).code == 0
    assert losses(tmp_path) == losses(straight)


@pytest.mark.slow
def test_an_optimum_on_the_edge_is_refused_and_the_extended_grid_goes_on(
    recipe: Path, tmp_path: Path
) -> None:
    low = ("--pruner", "none", "--seeds", 1, "--search", "optim.lr=2^-12..2^-10")
    refused = search(recipe, tmp_path, *low)
    assert refused.code == 72
    assert "optim.lr=2^-12..2^-8" in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "recipe.toml").exists()
    assert result(tmp_path)["recipe"] is None
    first = {t["number"]: t for t in result(tmp_path)["trials"]}
    forced = search(recipe, tmp_path, *low, "--force")
    assert forced.code == 0
    assert load_recipe(tmp_path / "recipe.toml").optim.lr == 2**-10
    assert "on the edge" in (tmp_path / "recipe.toml").read_text()
    assert (
        search(recipe, tmp_path, "--pruner", "none", "--seeds", 1, "--search", "optim.lr=2^-12..2^-8").code
        == 72
    )
    trials = result(tmp_path)["trials"]
    assert sorted(t["values"]["optim.lr"] for t in trials) == [2.0**n for n in range(-12, -7)]
    assert [t for t in trials if t["number"] in first] == list(first.values()), "kept, not done again"


def test_another_search_of_the_same_name_is_refused(recipe: Path, straight: Path) -> None:
    other = search(recipe, straight, *GRID, "--set", "optim.beta2=0.9")
    assert other.code == 78
    assert "optim.beta2: 0.999 -> 0.9" in other.err
    assert search(recipe, straight, "--search", "optim.beta1=0.8,0.9").code == 78


def test_a_diverged_trial_is_a_result_and_the_best_point_gets_seeds(recipe: Path, tmp_path: Path) -> None:
    guard = ("--set", "guard.max_skips_in_row=2")
    done = search(recipe, tmp_path, *guard, "--search", "optim.lr=2^-7,2^-6,1e30", "--force")
    assert done.code == 0, done.err
    facts = result(tmp_path)
    states = {t["values"]["optim.lr"]: t["state"] for t in facts["trials"] if t["seed"] == 7}
    assert states == {2**-7: "done", 2**-6: "done", 1e30: "diverged"}
    again = [t for t in facts["trials"] if t["seed"] != 7]
    assert sorted(t["seed"] for t in again) == [8, 9]
    assert all(t["values"] == facts["best"]["values"] for t in again)
    seeds = facts["seeds"]
    assert seeds["losses"] == [facts["best"]["loss"], *(t["loss"] for t in again)]
    assert seeds["sigma"] == pytest.approx(statistics.stdev(seeds["losses"]))


@pytest.mark.slow
def test_bad_trials_are_pruned_at_token_counts_and_those_beside_the_best_end(
    recipe: Path, tmp_path: Path
) -> None:
    rates = "optim.lr=1e-7,1e-6,1e-5,2^-9,2^-8,2^-7,2^-6,2^-5"
    assert search(recipe, tmp_path, "--search", rates, "--tokens", 25_600, "--force").code == 0
    facts = result(tmp_path)
    pruned = [t for t in facts["trials"] if t["state"] == "pruned"]
    assert pruned, "of eight rates from hopeless to good, some are worse than the median"
    for t in pruned:
        assert max(map(int, t["curve"])) < 25_600
        records = read_record(tmp_path / "trials" / f"{t['number']:04d}" / "metrics.jsonl")
        assert records[-1]["status"] == "preempted"
    values = facts["space"]["optim.lr"]
    at = values.index(facts["best"]["values"]["optim.lr"])
    done = {t["values"]["optim.lr"] for t in facts["trials"] if t["state"] == "done" and t["seed"] == 7}
    assert done >= set(values[max(0, at - 1) : at + 2])


@pytest.mark.slow
def test_ctrl_c_saves_the_trials_under_way_and_the_same_command_goes_on(recipe: Path, tmp_path: Path) -> None:
    words = (
        f"search {recipe} --out {tmp_path / 's'} --seeds 1 --tokens 25600 --stage small --workers 2 --force"
    )
    command = [sys.executable, "-m", "growlm", *words.split(), "--sampler", "qmc", "--trials", "3"]
    command += ["--search", "optim.lr=2^-7..2^-5"]
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}  # threads must not cost a fork
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    trials = tmp_path / "s" / "trials"
    while not all(_steps(trials / name) > 5 for name in ("0000", "0001")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "the same command continues" in process.communicate()[1]
    assert process.returncode == 75
    for name in ("0000", "0001"):
        assert read_record(trials / name / "metrics.jsonl")[-1]["status"] == "preempted"
    assert not _alive(tmp_path), "no trial outlives its search"
    assert subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0
    assert len(result(tmp_path / "s")["trials"]) == 3
    records = [json.loads(line) for line in (trials / "0000" / "metrics.jsonl").read_text().splitlines()]
    assert any(r["kind"] == "resume" for r in records)


@pytest.mark.slow
def test_a_trial_that_is_killed_goes_on_from_its_checkpoint(recipe: Path, tmp_path: Path) -> None:
    words = f"search {recipe} --out {tmp_path / 's'} --seeds 1 --tokens 25600 --stage small --force"
    command = [sys.executable, "-m", "growlm", *words.split(), "--search", "optim.lr=2^-6"]
    command += ["--set", "checkpoint.every_seconds=0.2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    trial = tmp_path / "s" / "trials" / "0000"
    while _steps(trial) < 60:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    started = next(r for r in read_record(trial / "metrics.jsonl") if r["kind"] == "start")
    os.kill(started["pid"], signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == 0, error
    (only,) = result(tmp_path / "s")["trials"]
    assert only["state"] == "done"
    lines = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    assert any(r["kind"] == "resume" and r["step"] > 0 for r in lines)
    assert all(r["identical"] for r in lines if r["kind"] == "verified")


def _steps(trial: Path) -> int:
    record = trial / "metrics.jsonl"
    return record.read_bytes().count(b'{"kind": "step"') if record.exists() else 0


def _alive(folder: Path) -> list[str]:
    """Processes that name a folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(path.parent.name)
        except OSError:
            continue
    return found
