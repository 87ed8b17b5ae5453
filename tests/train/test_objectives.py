"""Runs that learn language, signals and answers: on record, resumed, over ranks of objectives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from growlm.data.prepare import SourceOptions, prepare
from growlm.errors import RecipeError
from growlm.model.loss import Learning
from growlm.recipe.load import load_recipe
from growlm.recipe.objectives import OBJECTIVES
from growlm.recipe.schema import Recipe
from growlm.testing.tiny import write_corpus, write_recipe
from growlm.train.session import Session
from growlm.train.state import TrainState
from tests.train.helpers import ALONE, ONE_STAGE, killed, open_session, records, straight_run

MIXTURE = "data.mixture={en = 4.0, zh = 2.0, signals = 2.0, chat = 2.0}"
WORDS = ("red", "green", "seven", "eight", "blue")


@pytest.fixture(scope="module")
def recipe_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objectives")
    text = {name: SourceOptions(paths) for name, paths in write_corpus(folder / "text").items()}
    signals = [
        {"text": f"Case {i}", "proposition": f"A number: {WORDS[i % 4]}", "signal": i % 4 > 1}
        for i in range(80)
    ]
    chat = [{"prompt": f"Say {WORDS[i % 5]} {i}", "response": f"{WORDS[i % 5]}!"} for i in range(80)]
    for name, rows in (("signals", signals), ("chat", chat)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    examples = {
        "signals": SourceOptions([folder / "signals.jsonl"], kind="signals"),
        "chat": SourceOptions([folder / "chat.jsonl"], kind="instructions"),
    }
    prepare(folder / "data", text | examples, vocab_size=320, validation_share=0.2)
    return write_recipe(folder / "tiny.toml", folder / "data")


def recipe(path: Path, *overrides: str) -> Recipe:
    shape = ["stages.only.seq_len=64", "stages.only.tokens=12288", "model.vocab_size=320"]
    return load_recipe(path, [*ONE_STAGE, *shape, MIXTURE, *overrides])


def test_the_loss_is_the_mean_of_the_objectives_by_their_tokens(recipe_path: Path, tmp_path: Path) -> None:
    made = recipe(recipe_path, "data.document_mask=true")
    straight_run(made, tmp_path)
    with open_session(made, tmp_path / "again") as session:
        mixture = session.mixture
    seen: set[str] = set()
    for record in records(tmp_path, "step"):
        counts = mixture.learnt_tokens(0, record["step"] - 1)
        found = {name: entry["loss"] for name, entry in record["objectives"].items()}
        assert {name for name, loss in found.items() if loss is not None} == set(counts)
        total = sum(found[name] * count for name, count in counts.items())
        assert record["loss"] == pytest.approx(total / sum(counts.values()), rel=1e-5)
        assert sum(entry["tokens"] for entry in record["objectives"].values()) == record["tokens"]
        seen |= set(counts)
    assert seen == set(OBJECTIVES)


def test_the_gradient_is_the_mean_of_those_of_the_objectives(recipe_path: Path, tmp_path: Path) -> None:
    """Each by its learnt tokens; of one alone if its weight is as good as infinite."""
    made = recipe(recipe_path)
    with open_session(made, tmp_path) as session:
        counts, whole = session.mixture.learnt_tokens(0, 1), gradient(session, made)
    assert len(counts) == 3
    total = torch.zeros_like(whole)
    for name, count in counts.items():
        heavy = recipe(recipe_path, f"objectives.{name}=1e9")
        with open_session(heavy, tmp_path / name) as session:
            total += count / sum(counts.values()) * gradient(session, heavy)
    torch.testing.assert_close(whole, total, rtol=1e-4, atol=1e-6)


def gradient(session: Session, made: Recipe) -> torch.Tensor:
    """Of the second step, in one piece."""
    state, batch = TrainState.fresh(made, ALONE), session.mixture.batch(0, 1)
    x, y = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
    assert batch.weights is not None
    learning = Learning(torch.from_numpy(batch.weights), torch.from_numpy(batch.objective))
    state.engine.forward_backward(x, y, learning)
    return torch.cat([grad.flatten() for grad in state.engine.grads.values()])


@pytest.mark.parametrize(
    "how",
    [
        ("objectives.teacher=4.0",),
        ("stages.only.objectives=alternating", "data.document_mask=true"),
        ("objectives.head=classification", "stages.only.micro_batch_size=2"),
    ],
    ids=str,
)
def test_resumed_is_straight(recipe_path: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    made = recipe(recipe_path, *how, "checkpoint.every_steps=5", "checkpoint.every_seconds=1e6")
    killed(made, tmp_path / "killed", "train.after_step:kill@13")
    assert straight_run(made, tmp_path / "killed") == straight_run(made, tmp_path / "straight")
    assert [r["identical"] for r in records(tmp_path / "killed", "verified")] == [True]
    (valid,) = records(tmp_path / "straight", "valid")
    assert set(valid["losses"]) == {"en", "zh", "signals", "chat"}
    assert set(valid["accuracy"]) == {"signals"}


def test_signals_are_learnt(recipe_path: Path, tmp_path: Path) -> None:
    """Better than by knowing that one of the two comes, which costs ln 2 and is right half of the time."""
    made = recipe(recipe_path, "data.mixture={en = 1.0, signals = 9.0}", "stages.only.tokens=51200")
    straight_run(made, tmp_path)
    losses = [r["objectives"]["teacher"]["loss"] for r in records(tmp_path, "step")]
    assert losses[0] > 4
    assert losses[-1] < 0.6
    (valid,) = records(tmp_path, "valid")
    assert valid["accuracy"]["signals"] > 0.9


@pytest.mark.parametrize("exhausted", ["repeat", "stop"])
def test_a_source_that_runs_out(recipe_path: Path, tmp_path: Path, exhausted: str) -> None:
    made = recipe(recipe_path, "data.mixture={chat = 1.0}", f"data.exhausted={exhausted}")
    if exhausted == "stop":
        with pytest.raises(RecipeError, match="'chat' runs out in stage only"):
            straight_run(made, tmp_path)
        return
    straight_run(made, tmp_path)
    (valid,) = records(tmp_path, "valid")
    assert valid["epochs"]["chat"] > 1
    assert any("epochs" in r["message"] for r in records(tmp_path, "event"))
