"""The parts of a step: gradients, accumulation, clipping, skipping, validation, samples."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from growlm.errors import GrowLMError
from growlm.model.loss import Learning
from growlm.parallel.engine import Engine
from growlm.train import loop
from growlm.train.session import Session
from growlm.train.state import TrainState
from growlm.train.supervisor import run
from growlm.train.tally import Tally
from growlm.train.validate import generate, held_out
from tests.train.conftest import MakeRecipe
from tests.train.helpers import (
    ALONE,
    ONE_STAGE,
    killed,
    messages,
    newest,
    open_session,
    outcome,
    records,
    steps,
)

CPU = torch.device("cpu")
Step = tuple[Tensor, Tensor]
Poison = Callable[[Engine, Step], Step]


def gradients(state: TrainState) -> dict[str, Tensor]:
    return {name: grad.clone() for name, grad in state.engine.grads.items()}


def forward_backward(session: Session, state: TrainState) -> tuple[float, float]:
    """Loss and gradient norm of the next step; the gradients stay."""
    p = state.progress
    rows = state.engine.sequences(session.recipe.stages[p.stage].batch_size)
    x, y, *_ = session.batches.take(p.stage, p.stage_step, rows)
    loss, norm = state.engine.forward_backward(torch.from_numpy(x), torch.from_numpy(y))
    return loss.item(), norm.item()


def take_steps(session: Session, state: TrainState, n: int = 1) -> None:
    """Steps, counted and on record."""
    tally = Tally(session, state)
    for _ in range(n):
        loop.step(session, state, tally, 0.0)
        tally.settle()


def test_accumulation_equals_one_batch(recipe: MakeRecipe, tmp_path: Path) -> None:
    found = []
    for micro in (8, 4, 1):
        made = recipe(*ONE_STAGE, f"stages.only.micro_batch_size={micro}")
        with open_session(made, tmp_path / str(micro)) as session:
            state = TrainState.fresh(made, ALONE)
            loss, norm = forward_backward(session, state)
            found.append((loss, norm, gradients(state)))
    for loss, norm, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        assert norm == pytest.approx(found[0][1], rel=1e-6)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, found[0][2][name], rtol=1e-5, atol=1e-6)


def test_the_gradient_norm_is_over_all_parameters_and_clipping_scales_all(
    recipe: MakeRecipe, tmp_path: Path
) -> None:
    made = recipe(*ONE_STAGE, "optim.grad_clip=0.01")
    with open_session(made, tmp_path) as session:
        state = TrainState.fresh(made, ALONE)
        _, norm = forward_backward(session, state)
        grads = gradients(state)
        assert norm == pytest.approx(math.sqrt(sum(g.double().square().sum() for g in grads.values())))
        state.engine.zero_grad()
        take_steps(session, state)
    for name, grad in grads.items():
        expected = 0.1 * grad * (0.01 / (norm + 1e-6))
        torch.testing.assert_close(state.optimizer.exp_avg[name], expected, rtol=1e-6, atol=0)


def test_a_gradient_below_the_limit_is_not_scaled(recipe: MakeRecipe, tmp_path: Path) -> None:
    made = recipe(*ONE_STAGE, "optim.grad_clip=1e9")
    with open_session(made, tmp_path) as session:
        state = TrainState.fresh(made, ALONE)
        forward_backward(session, state)
        grads = gradients(state)
        state.engine.zero_grad()
        take_steps(session, state)
    for name, grad in grads.items():
        torch.testing.assert_close(state.optimizer.exp_avg[name], 0.1 * grad, rtol=1e-6, atol=0)


# --- steps that are skipped ----------------------------------------------------------------------------


def poison(patch: pytest.MonkeyPatch, at: dict[int, Poison]) -> None:
    """Let the steps with these numbers (0-based, of the run) compute something bad."""
    honest_step, honest = loop.step, Engine.forward_backward
    now: list[int] = []

    def step(session: Session, state: TrainState, tally: Tally, started: float) -> None:
        now[:] = [state.progress.step]
        honest_step(session, state, tally, started)

    def forward_backward(
        engine: Engine, tokens: Tensor, targets: Tensor, learning: Learning | None = None
    ) -> Step:
        found = honest(engine, tokens, targets, learning)
        bad = at.get(now[0])
        return bad(engine, found) if bad else found

    patch.setattr(loop, "step", step)
    patch.setattr(Engine, "forward_backward", forward_backward)


def nan_loss(_: Engine, found: Step) -> Step:
    return torch.full_like(found[0], math.nan), found[1]


def nan_gradient(engine: Engine, found: Step) -> Step:
    first = next(iter(engine.grads.values()))
    first[3, 3] = math.nan
    return found[0], get_total_norm(engine.grads.values()).double()


def inf_gradient(engine: Engine, found: Step) -> Step:
    list(engine.grads.values())[-1].fill_(math.inf)
    return found[0], get_total_norm(engine.grads.values()).double()


def spike(engine: Engine, found: Step) -> Step:
    for grad in engine.grads.values():
        grad *= 100
    return found[0] * 10, found[1] * 100


@pytest.mark.parametrize("bad", [nan_loss, nan_gradient, inf_gradient])
def test_a_step_that_is_not_finite_changes_no_bit_and_learning_goes_on(
    bad: Poison, recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(*ONE_STAGE)
    poison(monkeypatch, {2: bad})
    with open_session(made, tmp_path) as session:
        state = TrainState.fresh(made, ALONE)
        take_steps(session, state, 2)
        before = {
            name: tensor.clone()
            for name, tensor in (state.model.state_dict() | state.optimizer.state_dict()).items()
        }
        take_steps(session, state)
        after = state.model.state_dict() | state.optimizer.state_dict()
        assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        assert all(p.grad is None for p in state.model.parameters())
        p = state.progress
        assert (p.step, p.stage_step, p.updates, p.skipped, p.tokens) == (3, 3, 2, 1, 3 * 128)
        take_steps(session, state)
        assert not torch.equal(before["embedding.weight"], state.model.state_dict()["embedding.weight"])
        assert (state.progress.updates, state.progress.skipped) == (3, 1)
    assert [r["applied"] for r in records(tmp_path, "step")] == [True, True, False, True]
    skipped = records(tmp_path, "step")[2]
    assert None in (skipped["loss"], skipped["grad_norm"])
    assert "step 3 skipped" in messages(tmp_path)[0]


LONG = (ONE_STAGE[0].replace("3072", "3840"), ONE_STAGE[1])  # 30 steps


def test_spikes_are_skipped_alike_by_a_resumed_run(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(*LONG)
    poison(monkeypatch, dict.fromkeys((1, 9, 19, 20, 26), spike))
    run(made, tmp_path / "straight")
    killed(made, tmp_path / "killed", "train.after_step:kill@20")
    killed(made, tmp_path / "killed", "train.after_step:kill@4")
    run(made, tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "straight")
    applied = [r["applied"] for r in records(tmp_path / "straight", "step")]
    # Step 2 is in the grace, step 10 comes before the history is long enough to judge.
    assert [n for n, ok in enumerate(applied, start=1) if not ok] == [20, 21, 27]
    assert newest(tmp_path / "straight").manifest.skipped == 3
    assert newest(tmp_path / "straight").manifest.updates == 27


def test_too_many_skips_in_a_row_stop_the_run_and_the_checkpoint_stands(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(*ONE_STAGE, "guard.max_skips_in_row=6")
    run(made, tmp_path / "straight")
    with monkeypatch.context() as patch:
        poison(patch, dict.fromkeys(range(10, 24), nan_loss))
        with pytest.raises(GrowLMError, match="6 steps in a row had to be skipped") as error:
            run(made, tmp_path / "stopped")
    assert error.value.exit_code == 71
    assert "step 16" in error.value.where
    assert records(tmp_path / "stopped", "end")[-1]["status"] == "failed"
    assert newest(tmp_path / "stopped").manifest.step == 15, "the save that was under way is kept"
    with monkeypatch.context() as patch:  # it knows of the five skips before it
        poison(patch, dict.fromkeys(range(10, 24), nan_loss))
        with pytest.raises(GrowLMError, match="6 steps in a row"):
            run(made, tmp_path / "stopped")
    run(made, tmp_path / "stopped")
    assert [step[0] for step in steps(tmp_path / "stopped")] == list(range(1, 25))


# --- what is measured ----------------------------------------------------------------------------------


def test_validation_is_the_mean_over_the_same_tokens_whatever_the_batch(
    recipe: MakeRecipe, tmp_path: Path
) -> None:
    made = recipe(*ONE_STAGE)
    with open_session(made, tmp_path) as session:
        state, sources = TrainState.fresh(made, ALONE), session.dataset.sources
        read = {source: held_out(session.dataset, source, 16, 112, CPU) for source in sources}
        losses = [
            {s: state.engine.validate(*xy[:2], size) for s, xy in read.items()} for size in (7, 7, 3, 1)
        ]
        x, y, _ = held_out(session.dataset, "zh", 16, 112, CPU)
        whole = torch.nn.functional.cross_entropy(state.model.logits(x).flatten(0, 1), y.flatten())
    assert x.shape == (7, 16)
    assert losses[0] == losses[1]
    for other in losses[2:]:
        assert other == pytest.approx(losses[0], rel=1e-6)
    assert losses[0]["zh"] == pytest.approx(whole.item(), rel=1e-6)


def test_measuring_does_not_change_the_run(recipe: MakeRecipe, tmp_path: Path) -> None:
    for name, every in (("often", 100), ("never", 10**9)):
        run(recipe(f"eval.every_tokens={every}"), tmp_path / name)
    assert steps(tmp_path / "often") == steps(tmp_path / "never")
    assert len(records(tmp_path / "often", "valid")) == 29
    assert len(records(tmp_path / "never", "valid")) == 4, "at the end of every stage"


def test_samples_follow_from_the_seed(recipe: MakeRecipe, tmp_path: Path) -> None:
    made = recipe(*ONE_STAGE)
    with open_session(made, tmp_path) as session:
        model, tokenizer = TrainState.fresh(made, ALONE).model, session.tokenizer

        def sample(seed: int, **settings: float) -> str:
            return generate(
                model,
                tokenizer,
                "The river 河流",
                tokens=24,
                context=16,
                seed=seed,
                **settings,  # type: ignore[arg-type]
            )

        assert sample(1) == sample(1) != sample(2)
        assert sample(1, temperature=0) == sample(2, temperature=0) == sample(3, top_k=1)
        drawn = [
            generate(model, tokenizer, "", tokens=8, context=16, seed=s, temperature=100.0) for s in range(4)
        ]
        assert any(drawn)  # a text may begin with nothing, and end there
        assert generate(model, tokenizer, "a", tokens=0, context=16, seed=1) == ""


def test_samples_never_use_ids_that_the_tokenizer_does_not_have(recipe: MakeRecipe, tmp_path: Path) -> None:
    made = recipe(*ONE_STAGE, "model.vocab_size=2048")
    with open_session(made, tmp_path) as session:
        model = TrainState.fresh(made, ALONE).model
        generate(model, session.tokenizer, "a", tokens=64, context=16, seed=1, temperature=50.0, top_k=2048)


def test_validation_inside_a_ramp_measures_the_masked_model(recipe: MakeRecipe, tmp_path: Path) -> None:
    made = recipe("eval.every_tokens=100")
    killed(made, tmp_path, "train.after_step:kill@14")
    state = TrainState.load(newest(tmp_path), made, ALONE)
    assert (state.progress.step, state.mask) == (10, pytest.approx(0.6))
    losses = []
    with open_session(made, tmp_path / "other") as session:
        for mask in (state.mask, 1.0):
            state.engine.set_mask(state.ramp, mask)
            sources = session.dataset.sources
            losses.append(
                {
                    s: state.engine.validate(*held_out(session.dataset, s, 32, 128, CPU)[:2], 2)
                    for s in sources
                }
            )
    assert losses[0] == records(tmp_path, "valid")[9]["losses"] != losses[1]
