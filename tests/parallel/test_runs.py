"""Whole runs over several ranks: what one process computes, and one end for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.checkpoint.format import hash_tensor
from growlm.data.prepare import prepare
from growlm.testing.ranks import Ranks
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.state import load_model
from tests.parallel import run_jobs as jobs
from tests.train.helpers import messages, newest, outcome, records, steps

SMALL = [
    "stages=[{name = 'only', d_model = 16, n_heads = 2, d_ff = 32, n_layers = 1,"
    " tokens = 768, seq_len = 16, batch_size = 8, micro_batch_size = 1}]",
    "schedule.warmup_steps=2",
    "eval.every_tokens=1_000_000",
]
"""Six steps of the smallest shape."""

STAGES = {"small": 2, "masked": 1, "clone": 2, "words": 1}
BY_ONES = [f"stages.{name}.micro_batch_size={size}" for name, size in STAGES.items()]
"""All four stages in micro-batches for up to four ranks."""

STEADY = ["optim.eps=1e-3"]
"""AdamW that divides by no gradient so small that it is rounding."""

Told = list[dict[str, Any]]
Train = Callable[..., Told]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe with its data, and other data."""
    folder = tmp_path_factory.mktemp("tiny")
    for name, seed in (("data", 0), ("other", 1)):
        corpus = write_corpus(folder / f"text-{name}", seed=seed)
        prepare(folder / name, corpus, vocab_size=VOCABULARY, validation_share=0.1)
    write_recipe(folder / "tiny.toml", folder / "data")
    return folder


@pytest.fixture(scope="module")
def train(ranks: Ranks, files: Path) -> Train:
    """`train(folder, overrides, size, *events)`: what every rank tells of a run."""

    def of(folder: Path, overrides: list[str], size: int, *events: list[Any]) -> Told:
        return ranks.run(jobs.train, str(files / "tiny.toml"), overrides, str(folder), *events, size=size)

    return of


@pytest.fixture(scope="module")
def straight(
    train: Train, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[list[str]], tuple[Path, Told]]:
    """The run of one process, computed once."""
    known: dict[str, tuple[Path, Told]] = {}

    def of(overrides: list[str]) -> tuple[Path, Told]:
        if str(overrides) not in known:
            folder = tmp_path_factory.mktemp("straight")
            known[str(overrides)] = folder, train(folder, overrides, 1)
        return known[str(overrides)]

    return of


def batches(told: Told) -> list[list[int]]:
    """What all ranks of a run trained on, in order."""
    return sorted(sequence for rank in told for sequence in rank["batches"])


def bits(folder: Path) -> dict[str, Any]:
    """The outcome of a run, however many ranks wrote its files."""
    checkpoint, found = newest(folder), outcome(folder)
    with checkpoint.open() as tensors:
        hashes = {name: hash_tensor(tensors.read(name)) for name in checkpoint.manifest.tensors}
    return found | {"files": hashes}


def assert_close(folder: Path, expected: Path, tolerance: float = 1e-6) -> None:
    """The same run but for rounding."""

    def numbers(run: Path) -> list[float]:
        losses = [x for _, *figures in curves(run) for x in figures]
        return losses + [x for r in records(run, "valid") for _, x in sorted(r["losses"].items())]

    assert numbers(folder) == pytest.approx(numbers(expected), rel=tolerance)
    one, many = outcome(expected), outcome(folder)
    assert many["samples"] == one["samples"]
    assert many["growths"].keys() == one["growths"].keys()
    for stage, (step, certificate) in many["growths"].items():
        assert step == one["growths"][stage][0]
        assert certificate["exact"] == one["growths"][stage][1]["exact"]
    weights = load_model(newest(expected)).state_dict()
    for name, tensor in load_model(newest(folder)).state_dict().items():
        largest = weights[name].abs().max().item()
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=max(10 * tolerance * largest, 1e-9))


def curves(folder: Path) -> list[tuple[int, float, float]]:
    return [(step[0], step[3], step[4]) for step in steps(folder)]


def assert_all_end(told: Told, kind: str, code: int, what: str) -> None:
    """Rank 0 says what happened, the others leave with the same code."""
    assert [rank["error"] for rank in told] == [kind] + ["Elsewhere"] * (len(told) - 1)
    assert {rank["code"] for rank in told} == {code}
    assert what in told[0]["text"]


# --- the run of one process -----------------------------------------------------------------------------


def test_four_stages_in_four_layouts(train: Train, straight: Any, tmp_path: Path) -> None:
    layouts = {
        "small": "{dp = 4}",
        "masked": "{dp = 2, tp = 2}",
        "clone": "{tp = 2, pp = 2}",
        "words": "{pp = 2, dp = 2}",
    }
    given = [f"stages.{name}.layout={layout}" for name, layout in layouts.items()]
    assert [rank["step"] for rank in train(tmp_path, [*STEADY, *given], 4)] == [29] * 4
    folder, _ = straight(STEADY)
    assert_close(tmp_path, folder)
    assert messages(tmp_path) == messages(folder)


def test_ranks_change_bits_unless_told_not_to(train: Train, straight: Any, tmp_path: Path) -> None:
    """So that what the next tests compare by bits would show a difference."""
    for deterministic in ("false", "true"):
        overrides = [*SMALL, f"train.deterministic={deterministic}"]
        train(tmp_path / deterministic, overrides, 2)
        same = bits(tmp_path / deterministic) == bits(straight(overrides)[0])
        assert same is (deterministic == "true")


# --- stopped, and continued by another number of ranks --------------------------------------------------


def test_another_number_of_ranks_goes_on(train: Train, straight: Any, tmp_path: Path) -> None:
    overrides = [*BY_ONES, *STEADY]
    told: Told = []
    for size, rank, step in ((4, 1, 5), (2, 1, 12), (1, 0, 19)):
        stopped = train(tmp_path, overrides, size, ["signal", rank, step])
        what = "another rank was asked to stop" if rank else "received SIGTERM"
        assert_all_end(stopped, "Preempted", 75, f"stopped at step {step}: {what}")
        assert newest(tmp_path).manifest.step == step
        told += stopped
    told += train(tmp_path, overrides, 4)
    folder, expected = straight(overrides)
    assert batches(told) == batches(expected), "every sequence once, in its place"
    assert_close(tmp_path, folder)


def test_a_deterministic_run_has_the_bits_of_one_process(train: Train, straight: Any, tmp_path: Path) -> None:
    """On 4, 2, 1 and 4 ranks; each crashes some steps after its last save, and the next repeats them."""
    overrides = [*BY_ONES, "train.deterministic=true"]
    for size, step in ((4, 6), (2, 13), (1, 20), (4, 28)):
        crashed = train(tmp_path, overrides, size, *(["crash", rank, step] for rank in range(size)))
        assert [rank["error"] for rank in crashed] == ["CrashError"] * size
    train(tmp_path, overrides, 2)
    folder, _ = straight(overrides)
    assert bits(tmp_path) == bits(folder)
    verified = records(tmp_path, "verified")
    assert len(verified) >= 3, "the ends of stages are saved for certain, step 3 not before the crash"
    assert all(record["identical"] for record in verified)
    assert messages(tmp_path) == messages(folder)


# --- what happens to one rank ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["{dp = 2}", "{dp = 2, tp = 2}"])
def test_all_skip_the_step_that_one_cannot_take(train: Train, layout: str, tmp_path: Path) -> None:
    size = 2 * layout.count("2")
    told = train(tmp_path, [*SMALL, f"stages.only.layout={layout}"], size, ["nan", size - 1, 3])
    assert [rank["step"] for rank in told] == [6] * size
    assert [step["applied"] for step in records(tmp_path, "step")] == [True, True, False, True, True, True]
    manifest = newest(tmp_path).manifest
    assert (manifest.updates, manifest.skipped) == (5, 1)
    with newest(tmp_path).open() as tensors:
        assert all(tensors.read(name).isfinite().all() for name in manifest.tensors)


def test_text_that_is_damaged_for_one_rank_ends_the_run_after_a_save(train: Train, tmp_path: Path) -> None:
    told = train(tmp_path, SMALL, 4, ["damage", 2, 3])
    assert_all_end(told, "DataError", 65, "damaged text")
    assert "rank 2, shard 3" in told[0]["text"]
    assert newest(tmp_path).manifest.step == 2
    assert [rank["step"] for rank in train(tmp_path, SMALL, 4)] == [6] * 4


def test_held_out_text_that_is_damaged_for_one_rank_ends_the_run(train: Train, tmp_path: Path) -> None:
    told = train(tmp_path, [*SMALL, "eval.every_tokens=256"], 2, ["damage validation", 1, "zh"])
    assert_all_end(told, "DataError", 65, "damaged text")
    assert "rank 1, shard 7" in told[0]["text"]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("point", ["checkpoint.write", "checkpoint.before_rename"])
def test_a_full_disk_in_mid_stage_costs_a_save_not_the_run(
    train: Train, straight: Any, point: str, rank: int, tmp_path: Path
) -> None:
    if point == "checkpoint.before_rename" and rank:
        pytest.skip("rank 0 commits")
    saves = [*SMALL, "checkpoint.every_steps=2"]
    told = train(tmp_path, saves, 2, ["fault", rank, f"{point}:enospc@1"])
    assert [rank["step"] for rank in told] == [6, 6]
    warnings = [m for m in messages(tmp_path) if "not saved, training goes on" in m]
    assert len(warnings) == 1
    assert newest(tmp_path).manifest.step == 6
    one, _ = straight(SMALL)
    for found, expected in zip(curves(tmp_path), curves(one), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [1, 2])
def test_numbers_that_are_read_late_are_the_same(train: Train, size: int, tmp_path: Path) -> None:
    settings = [*SMALL, "checkpoint.every_steps=2", "eval.every_tokens=512"]
    late = [["lag", rank, None] for rank in range(size)]
    assert [rank["step"] for rank in train(tmp_path / "late", settings, size, *late)] == [6] * size
    train(tmp_path / "at-once", settings, size)
    assert bits(tmp_path / "late") == bits(tmp_path / "at-once")


def test_a_step_that_is_still_open_is_settled_before_damage_ends_the_run(
    train: Train, tmp_path: Path
) -> None:
    told = train(tmp_path, SMALL, 1, ["lag", 0, None], ["damage", 0, 4])
    assert told[0]["code"] == 65
    manifest = newest(tmp_path).manifest
    assert (manifest.step, manifest.updates) == (3, 3)
    assert [step[0] for step in steps(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "what", "code", "text"),
    [
        ("override", "optim.lr=1e-3", 2, "rank 1 has recipe"),
        ("override", "data.path=", 2, "rank 1 has data"),
        ("override", "data.path=nowhere", 65, "rank 1, "),
        ("version", "0.0.9", 2, "rank 1 has GrowLM 0.0.9"),
    ],
)
def test_a_rank_that_would_train_something_else(
    train: Train, files: Path, kind: str, what: str, code: int, text: str, tmp_path: Path
) -> None:
    if what == "data.path=":
        what += str(files / "other")
    told = train(tmp_path / "run", SMALL, 2, [kind, 1, what])
    assert {rank["code"] for rank in told} == {code}
    assert text in told[0]["text"]
    assert told[1]["error"] == "Elsewhere"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "size", "what"),
    [
        (["stages.only.layout={dp = 4}"], 2, "over a multiple of 4 ranks (dp 4), and 2 were started"),
        (["stages.only.layout={tp = 2, pp = 1, dp = 1}"], 4, "and 4 were started"),
        ([], 3, "not a multiple of dp 3"),
        (["train.deterministic=true"], 3, "power of two"),
    ],
)
def test_a_number_of_ranks_that_does_not_fit_the_recipe(
    train: Train, overrides: list[str], size: int, what: str, tmp_path: Path
) -> None:
    told = train(tmp_path / "run", [*SMALL, *overrides], size)
    assert_all_end(told, "RecipeError", 2, what)
    assert "rank 0" not in told[0]["text"], "it is everyone's"
    assert not (tmp_path / "run").exists()
