"""n ranks equal one process: three steps of an engine in every kind of layout beside one plain model.

In fp64 what is left is rounding at 1e-15, so 1e-12 has no room for a term that is missing or counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from growlm.plan.layout import Layout
from growlm.recipe.shape import ModelConfig
from growlm.testing.ranks import Ranks
from tests.model.tiny import config
from tests.parallel import jobs

SEQUENCE = {"sequence_parallel": True}
GROWN = {"grown": True}
MUON = {"optimizer": "muon"}

Row = tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]
"""Family, its shape, the layout, the training: what is not said is as in `shape`, `Layout`, `Training`."""

ALONE: list[Row] = [
    ("llama", {}, {"micro_batch": 2}, GROWN),
    ("flm", {"tied": False}, {"micro_batch": 2, "recompute": "selective"}, GROWN),
    ("qwen3", {}, {"micro_batch": 4, "recompute": "full", "recompute_every": 2}, MUON),
    ("neox", {}, {}, {"deterministic": True}),
]
DATA: list[Row] = [
    ("llama", {}, {"dp": 2, "zero": 0}, {}),
    ("qwen3", {"tied": False}, {"dp": 2, "zero": 1, "micro_batch": 2}, GROWN),
    ("gpt2", {}, {"dp": 2, "zero": 2, "recompute": "selective"}, GROWN),
    ("neox", {}, {"dp": 2, "zero": 3, "recompute": "full"}, GROWN),
    ("llama", {"n_kv_heads": 4}, {"dp": 3, "zero": 3}, {"batch": 6}),  # 26 and 20 rows over 3 ranks
    ("llama", {"tied": False}, {"dp": 4, "zero": 1}, GROWN | MUON),
    ("flm", {}, {"dp": 4, "zero": 3, "replicas": 2}, GROWN),
    ("qwen3", {}, {"dp": 4, "zero": 2, "replicas": 2, "micro_batch": 2}, MUON),
    ("flm", {}, {"dp": 4, "zero": 0}, GROWN | {"deterministic": True}),
]
TENSOR: list[Row] = [
    ("llama", {}, {"tp": 2}, GROWN),
    ("llama", {"tied": False}, {"tp": 2, **SEQUENCE, "recompute": "selective"}, GROWN),
    ("flm", {"n_kv_heads": 4}, {"tp": 4, **SEQUENCE, "micro_batch": 2, "recompute": "full"}, GROWN),
    ("qwen3", {}, {"tp": 2}, GROWN | MUON),
    ("qwen3", {}, {"tp": 2, **SEQUENCE}, GROWN),
    ("gpt2", {}, {"tp": 2, **SEQUENCE}, GROWN),
    ("opt", {}, {"tp": 2, "micro_batch": 4}, GROWN),
    ("neox", {"tied": False}, {"tp": 2, **SEQUENCE}, GROWN),
]
PIPELINE: list[Row] = [
    ("llama", {"n_layers": 5}, {"pp": 2, "micro_batch": 2}, GROWN),
    ("flm", {"tied": False}, {"pp": 2, "micro_batch": 4, "recompute": "full"}, GROWN),
    ("gpt2", {}, {"pp": 3, "recompute": "selective"}, GROWN | {"batch": 4}),
    ("qwen3", {"n_layers": 5}, {"pp": 2, "interleave": 2, "micro_batch": 2}, GROWN | MUON),
    ("neox", {"n_layers": 4}, {"pp": 4, "micro_batch": 1}, GROWN),
]
TOGETHER: list[Row] = [
    ("llama", {}, {"dp": 2, "tp": 2}, GROWN),
    ("qwen3", {"tied": False}, {"dp": 2, "tp": 2, **SEQUENCE, "zero": 3, "recompute": "full"}, GROWN | MUON),
    ("flm", {}, {"dp": 2, "tp": 2, **SEQUENCE, "zero": 2, "micro_batch": 2}, GROWN),
    ("llama", {"n_layers": 5}, {"dp": 2, "pp": 2, "micro_batch": 2}, GROWN),
    ("gpt2", {}, {"dp": 2, "pp": 2, "zero": 1, "recompute": "selective"}, GROWN),
    ("qwen2", {}, {"dp": 2, "pp": 2, "zero": 0, "micro_batch": 2}, GROWN | MUON),
    ("flm", {"n_layers": 5}, {"dp": 2, "pp": 2, "zero": 1, "interleave": 2}, GROWN),
    ("neox", {}, {"tp": 2, "pp": 2, "micro_batch": 2}, GROWN),
    ("qwen3", {}, {"tp": 2, "pp": 2, **SEQUENCE, "interleave": 1, "recompute": "selective"}, GROWN | MUON),
    ("llama", {"n_layers": 5, "tied": False}, {"tp": 2, "pp": 2, **SEQUENCE, "interleave": 2}, GROWN),
]
COMPLETEP = {"mup_base_d_model": 5, "mup_base_hidden": (8.0, 4.0, 14.0), "mup_base_n_layers": 1}
"""4 times as wide as its base shape, 2 times in q, kv and ffn, and 3 or more times as deep."""
SCALED: list[Row] = [
    ("llama", COMPLETEP | {"logit_mult": 0.25}, {"dp": 2, "zero": 3}, GROWN),
    ("flm", COMPLETEP | {"logit_mult": 0.25, "tied": False}, {"tp": 2, **SEQUENCE}, {}),
    ("qwen3", COMPLETEP | {"n_layers": 5}, {"pp": 2, "micro_batch": 2}, MUON),
    ("llama", COMPLETEP | {"logit_mult": 0.25}, {"dp": 2, "tp": 2, "zero": 1, "recompute": "full"}, MUON),
]
LEARNING = {"learning": True}
CLASSES = LEARNING | {"classes": True}
OBJECTIVES: list[Row] = [
    ("llama", {"vocab_size": 12}, {"micro_batch": 2}, CLASSES),
    ("qwen3", {}, {"dp": 2, "zero": 3, "micro_batch": 2, "recompute": "selective"}, LEARNING | GROWN),
    ("flm", {"vocab_size": 12}, {"dp": 2, "zero": 0}, CLASSES | {"deterministic": True}),
    ("neox", {}, {"tp": 2, **SEQUENCE, "recompute": "full"}, LEARNING),
    ("llama", {"n_layers": 5, "vocab_size": 12}, {"pp": 2, "interleave": 2, "micro_batch": 2}, CLASSES),
    ("flm", {"tied": False}, {"dp": 2, "tp": 2, **SEQUENCE}, LEARNING | GROWN),
    ("llama", {"vocab_size": 12}, {"tp": 2}, CLASSES),
    ("qwen3", {"vocab_size": 8, "tied": False}, {"tp": 2, **SEQUENCE}, CLASSES),  # a row on each rank
    ("qwen3", {}, {"tp": 2, "pp": 2, "micro_batch": 2}, LEARNING | MUON),
]
CORNER: list[Row] = [
    ("qwen3", {}, {"dp": 2, "tp": 2, "pp": 2, **SEQUENCE, "recompute": "selective"}, GROWN | MUON),
    ("flm", {"n_layers": 5}, {"dp": 2, "tp": 2, "pp": 2, "zero": 1, "interleave": 2}, GROWN),
]


@pytest.fixture(scope="module")
def eight() -> Iterator[Ranks]:
    with Ranks(8) as ranks:
        yield ranks


def shape(family: str, changes: dict[str, Any]) -> ModelConfig:
    """Three layers of 4 heads, no size of which is a power of two but those that must divide."""
    return config(family, **{"d_model": 20, "d_ff": 28, "n_layers": 3, "vocab_size": 52} | changes)


def assert_equal(ranks: Ranks, row: Row, **how: Any) -> None:
    family, changes, layout, training = row
    laid_out, training = Layout(**layout), training | how
    told = ranks.run(
        jobs.differences,
        shape(family, changes).to_dict(),
        asdict(laid_out),
        training,
        size=laid_out.world,
    )
    limit = jobs.TOLERANCE[training["precision"]]
    for rank, apart in enumerate(told):
        logits = apart.pop("logits")
        assert max(apart.values()) < limit, (rank, apart)
        assert logits < 10 * limit, rank


def name(row: Row) -> str:
    family, changes, layout, training = row
    shown = {key: value for key, value in changes.items() if key not in COMPLETEP} | layout | training
    scaled = ["completep"] if COMPLETEP.items() <= changes.items() else []
    return "-".join([family, *scaled, *(f"{key}={value}" for key, value in shown.items())])


@pytest.mark.parametrize(
    "row", [*ALONE, *DATA, *TENSOR, *PIPELINE, *TOGETHER, *SCALED, *OBJECTIVES], ids=name
)
def test_a_layout_trains_as_one_process(ranks: Ranks, row: Row) -> None:
    assert_equal(ranks, row, precision="fp64")


@pytest.mark.parametrize("row", CORNER, ids=name)
def test_all_three_at_once(eight: Ranks, row: Row) -> None:
    assert_equal(eight, row, precision="fp64")


@pytest.mark.parametrize("row", [DATA[1], TENSOR[1], PIPELINE[0], TOGETHER[2], TOGETHER[9]], ids=name)
def test_in_fp32_what_differs_is_rounding(ranks: Ranks, row: Row) -> None:
    assert_equal(ranks, row, precision="fp32")


@pytest.mark.parametrize(
    "layout", [{"dp": 2, "zero": 3}, {"tp": 2}, {"tp": 2, **SEQUENCE}, {"pp": 2}], ids=str
)
def test_in_bf16_ranks_are_as_far_from_one_process_as_that_is_from_fp32(
    ranks: Ranks, layout: dict[str, Any]
) -> None:
    """Within twice as far: each is within the rounding of bf16, with its 8 bits, of what fp32 gives."""
    model, laid_out = shape("llama", {}).to_dict(), Layout(**layout, micro_batch=2)
    rounding = jobs.rounding(model, GROWN)
    told = ranks.run(jobs.differences, model, asdict(laid_out), GROWN | {"precision": "bf16"}, size=2)
    for apart in told:
        assert all(value < 2 * max(rounding[kind], 2**-9) for kind, value in apart.items()), (rounding, apart)


@pytest.mark.parametrize(
    "layout",
    [{"dp": 2, "zero": 1}, {"dp": 2, "zero": 2}, {"dp": 4, "zero": 3, "replicas": 2}, {"pp": 2}],
    ids=str,
)
def test_gradients_in_bf16_are_summed_in_fp32(ranks: Ranks, layout: dict[str, Any]) -> None:
    """Over 64 micro-batches and all ranks; a sum in bf16 would have lost the small ones."""
    laid_out = Layout(**layout)
    model = shape("llama", {"d_model": 16, "d_ff": 24}).to_dict()
    for summed, in_bf16 in ranks.run(jobs.summed_gradients, model, asdict(laid_out), 64, size=laid_out.world):
        assert summed < 1e-5
        assert in_bf16 > 1e-3
