"""What a run is resumed with that is not as it was: taken over, accepted with the flag, or refused."""

import shutil
from pathlib import Path

import pytest
import torch

from growlm.data.dataset import TokenDataset
from growlm.data.prepare import prepare
from growlm.errors import (
    DriftError,
)
from growlm.testing.tiny import VOCABULARY, write_corpus
from growlm.train.supervisor import run
from tests.train.conftest import MakeRecipe, Straight
from tests.train.helpers import (
    ONE_STAGE,
    content,
    killed,
    messages,
    outcome,
    records,
    steps,
)


def refused(changed: MakeRecipe, override: str, folder: Path, *, accept_changes: bool = False) -> DriftError:
    before = content(folder)
    with pytest.raises(DriftError) as error:
        run(changed(override), folder, accept_changes=accept_changes)
    assert error.value.exit_code == 78
    assert content(folder) == before
    return error.value


def test_a_free_change_goes_on_with_the_same_bits(
    recipe: MakeRecipe, straight: Straight, begun: Path
) -> None:
    run(recipe("checkpoint.keep=3", "budget.price_per_hour=2.0"), begun)
    assert outcome(begun) == straight()
    assert any("checkpoint.keep: 2 -> 3" in message for message in messages(begun, "info"))
    assert records(begun, "verified")[-1]["identical"]
    assert records(begun, "step")[-1]["cost"] > 0


def test_a_flagged_change_needs_the_flag_and_is_logged(recipe: MakeRecipe, begun: Path) -> None:
    error = refused(recipe, "optim.lr=1e-3", begun)
    assert "optim.lr: 0.005 -> 0.001" in error.what
    assert "--accept-changes" in error.fix
    run(recipe("optim.lr=1e-3"), begun, accept_changes=True)
    assert any("optim.lr: 0.005 -> 0.001" in message for message in messages(begun))
    assert records(begun, "step")[10]["lr"] == 1e-3
    assert records(begun, "verified") == [], "another run has nothing to be compared with"
    run(recipe("optim.lr=1e-3"), begun)  # from now on this is its recipe


@pytest.mark.parametrize(
    "override",
    [
        "seed=8",
        "model.init_std=0.03",
        "stages.masked.batch_size=2",
        "stages.masked.seq_len=16",
        "stages.masked.mixture={en = 1, zh = 1}",
        "data.mixture.en=60",
        "stages.masked.d_ff=64",
        "stages.small.tokens=1024",
        "stages.words.seq_len=64",  # a new longest context is another order of the whole run
    ],
)
def test_a_forbidden_change_is_refused_even_with_the_flag(
    override: str, recipe: MakeRecipe, begun: Path
) -> None:
    error = refused(recipe, override, begun, accept_changes=True)
    assert "new stage" in error.fix


def test_a_stage_cannot_end_before_where_it_is(recipe: MakeRecipe, begun: Path) -> None:
    fewer = "stages.masked.tokens=256"  # 2 steps, 3 are done
    ramp = "stages.masked.growth.ramp_steps=2"
    with pytest.raises(DriftError, match=r"ramp_steps|2 steps, and 3"):
        run(recipe(fewer, ramp), begun, accept_changes=True)
    one = recipe(*ONE_STAGE)
    folder = begun.with_name("one")
    killed(one, folder, "train.after_step:kill@13")
    error = refused(lambda *o: recipe(*ONE_STAGE, *o), "stages.only.tokens=512", folder, accept_changes=True)
    assert "4 steps, and 9 of it are done" in error.what
    run(recipe(*ONE_STAGE, "stages.only.tokens=1152"), folder, accept_changes=True)
    assert len(steps(folder)) == 9


def test_a_finished_run_goes_on_when_its_last_stage_is_made_longer(
    recipe: MakeRecipe, tmp_path: Path
) -> None:
    run(recipe(*ONE_STAGE, "stages.only.tokens=1152", "schedule.decay_share=0.0"), tmp_path / "run")
    longer = recipe(*ONE_STAGE, "schedule.decay_share=0.0")
    run(longer, tmp_path / "run", accept_changes=True)
    run(longer, tmp_path / "straight")
    assert steps(tmp_path / "run") == steps(tmp_path / "straight")


def test_a_finished_run_has_nothing_to_do(recipe: MakeRecipe, tmp_path: Path) -> None:
    run(recipe(*ONE_STAGE), tmp_path)
    before = content(tmp_path)
    assert run(recipe(*ONE_STAGE), tmp_path).step == 24
    assert content(tmp_path) == before


def test_other_data_is_refused(recipe: MakeRecipe, begun: Path, tmp_path: Path) -> None:
    text = write_corpus(tmp_path / "text", documents=100)
    tokenizer = Path(recipe().data.path) / "tokenizer.json"
    prepare(tmp_path / "other", text, tokenizer=tokenizer, validation_share=0.1)
    error = refused(recipe, f"data.path={tmp_path / 'other'}", begun)
    assert error.what.startswith("the data is not what this run was started with: en train: ")
    then, now = (TokenDataset.open(path) for path in (recipe().data.path, tmp_path / "other"))
    for source in ("en", "zh"):
        before, after = (data.tokens(source, "train") for data in (then, now))
        said = f"{source} train: {before:,} tokens then, {after:,} now; {source}/train-00000.bin differs"
        assert said in error.what
    run(recipe(f"data.path={tmp_path / 'other'}"), begun, accept_changes=True)
    assert any("the data changed" in message for message in messages(begun))
    assert records(begun, "verified") == []


def test_the_same_data_elsewhere_is_the_same(
    recipe: MakeRecipe, straight: Straight, begun: Path, tmp_path: Path
) -> None:
    shutil.copytree(recipe().data.path, tmp_path / "moved")
    run(recipe(f"data.path={tmp_path / 'moved'}"), begun)
    assert outcome(begun) == straight()


def test_another_tokenizer_is_refused_even_with_the_flag(
    recipe: MakeRecipe, begun: Path, tmp_path: Path
) -> None:
    prepare(tmp_path / "other", write_corpus(tmp_path / "text"), vocab_size=VOCABULARY - 9)
    error = refused(recipe, f"data.path={tmp_path / 'other'}", begun, accept_changes=True)
    assert "tokenizer" in error.what


def test_another_recipe_is_noticed_when_the_stored_one_is_gone(recipe: MakeRecipe, begun: Path) -> None:
    (begun / "recipe.json").unlink()
    assert "only its hash" in refused(recipe, "optim.lr=5e-4", begun).why
    run(recipe(), begun)


def test_another_number_of_threads_is_a_warning(recipe: MakeRecipe, tmp_path: Path) -> None:
    """Not from the recipe, which would be a change of it, but from a machine with other cores."""
    made = recipe(*ONE_STAGE).model_copy(
        update={"train": recipe().train.model_copy(update={"threads": None})}
    )
    killed(made, tmp_path, "train.after_step:kill@7")
    torch.set_num_threads(2)
    try:
        run(made, tmp_path)
    finally:
        torch.set_num_threads(1)
    assert any("threads was 1, is 2" in message for message in messages(tmp_path))
    assert records(tmp_path, "verified") == []
