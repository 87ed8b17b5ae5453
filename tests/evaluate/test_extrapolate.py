"""Losses far beyond the trained length: of a shorter context where it ends; RoPE is xPos without decay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from growlm.data.dataset import TokenDataset
from growlm.data.prepare import prepare
from growlm.errors import CheckpointError, DataError, RecipeError
from growlm.evaluate.extrapolate import GROUPS, Asked, context_scores, measure_context, window_losses
from growlm.model.positions import rotary_tables
from growlm.recipe.load import load_recipe
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.supervisor import run
from tests.model.tiny import config, decoder
from tests.train.helpers import ONE_STAGE

TRAINED, LONGEST = 16, 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    prepare(folder / "data", write_corpus(folder / "text"), vocab_size=VOCABULARY, validation_share=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.train.supervisor.peak_tflops", lambda *_: 1.0)
        run(load_recipe(write_recipe(folder / "tiny.toml", folder / "data"), ONE_STAGE), folder / "run")
    return folder


@pytest.mark.parametrize("family", ["flm", "llama"])
def test_what_comes_later_in_a_window_changes_no_loss(family: str) -> None:
    """With xPos too, whose tables are centred on the window."""
    model = decoder(config(family))
    tokens, targets = torch.randint(0, 50, (2, 3, 64), generator=torch.Generator().manual_seed(0))
    whole = window_losses(model, tokens, targets)
    for length in (1, 17, 64):
        short = window_losses(model, tokens[:, :length], targets[:, :length])
        torch.testing.assert_close(whole[:, :length], short, rtol=1e-9, atol=1e-9)
    exact = torch.nn.functional.cross_entropy(
        model.logits(tokens).flatten(0, 1), targets.flatten(), reduction="none"
    )
    torch.testing.assert_close(whole.flatten(), exact)


def test_a_scale_base_without_end_is_rope() -> None:
    shape = config("flm").with_(xpos_scale_base=1e12)
    rope, xpos = (
        rotary_tables(shape, kind, 1024, torch.device("cpu"), torch.float32) for kind in ("rope", "xpos")
    )
    for one, other in zip(rope, xpos, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


def test_lengths_are_the_means_of_their_positions() -> None:
    losses = torch.rand(7, TRAINED * LONGEST, dtype=torch.float64)
    scores = context_scores(losses, TRAINED)
    position, length = ({int(s.task): s for s in scores if s.group == group} for group in GROUPS)
    assert list(position) == list(range(2, 65, 2))
    assert list(length) == [4, 8, 16, 32, 64]
    for end, score in length.items():
        parts = [one.value for at, one in position.items() if at <= end]
        assert score.value == pytest.approx(sum(parts) / len(parts))
        error = losses[:, :end].mean(1).std() / 7**0.5
        assert score.high - score.value == pytest.approx(1.96 * error.item())


def test_a_run_is_measured_on_held_out_text(prepared: Path) -> None:
    result = measure_context(prepared / "run", Asked(prepared / "data", longest=LONGEST, windows=5))
    assert (result.settings["trained"], result.settings["source"], result.settings["positions"]) == (
        16,
        "en",
        "RoPE",
    )
    assert {score.items for score in result.scores} == {5}
    assert result.model.tokens == 3072


def test_one_window_has_no_interval(prepared: Path) -> None:
    text = TokenDataset.open(prepared / "data").validation("en", TRAINED, 10**9)
    longest = text.tokens.size // TRAINED * 2 // 3  # fits once
    with pytest.raises(DataError, match="fills one window"):
        measure_context(prepared / "run", Asked(prepared / "data", longest=longest))


def test_what_cannot_be_measured(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no source of running text"):
        measure_context(prepared / "run", Asked(prepared / "data", source="fr"))
    other = write_corpus(tmp_path / "text", seed=1)
    prepare(tmp_path / "data", other, vocab_size=300, validation_share=0.1)
    with pytest.raises(CheckpointError, match="not the one the checkpoint was trained with"):
        measure_context(prepared / "run", Asked(tmp_path / "data"))
    learned = ["model.family=gpt2", "model.max_positions=32", "stages.0.tokens=640"]
    made = load_recipe(prepared / "tiny.toml", [*ONE_STAGE, *learned])
    run(made, tmp_path / "learned")
    with pytest.raises(CheckpointError, match="learned 32 positions"):
        measure_context(tmp_path / "learned", Asked(prepared / "data"))
