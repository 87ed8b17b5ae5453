"""Tasks that are measured during a run: it goes on as without them, and they say what they say afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from growlm.data.tokenizer import Tokenizer
from growlm.errors import LimitReached, Preempted, RecipeError
from growlm.evaluate.engine_model import EngineModel, OwnModel, model_of
from growlm.evaluate.iq.suite import measure
from growlm.evaluate.training import prepare_tasks
from growlm.inference.requests import Choice, Prompt
from growlm.inference.source import open_model
from growlm.parallel.engine import Engine
from growlm.plan.layout import Layout
from growlm.recipe.schema import Recipe
from growlm.testing.ranks import Ranks
from growlm.testing.tiny import write_recipe
from growlm.train.state import TrainState
from growlm.train.supervisor import run
from growlm.train.tasks import Tasks
from tests.checkpoint.helpers import in_child
from tests.model.tiny import config
from tests.parallel import task_jobs as jobs
from tests.train.helpers import ALONE, ONE_STAGE, newest, outcome, records

MakeRecipe = Callable[..., Recipe]
TASKS = ("eval.tasks=['head_slicing']", "eval.task_items=2", "eval.tasks_every_tokens=1500")
ENDS = [896, 1920, 2688, 3712]
"""Tokens of the tiny recipe at the end of each stage."""

CHOICES = [
    Choice("The river carries the", " lantern."),
    Choice("The river carries the", " letter and then the winter follows it"),
    Choice("", "河流带走山峰。"),
    Choice("The garden paints the teacher. " * 9, "The"),
]
PROMPTS = [Prompt("The river", 6), Prompt("河流带走", 9, stop=("。",)), Prompt("The letter answers " * 9, 5)]


@pytest.fixture(scope="module")
def with_tasks(recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.train.supervisor.peak_tflops", lambda *_: 1.0)
        run(recipe(*TASKS), folder, prepare_tasks=prepare_tasks)
    return folder


def scores(folder: Path) -> list[tuple[int, list[dict[str, Any]]]]:
    return [(r["tokens"], r["scores"]) for r in records(folder, "tasks")]


def test_the_run_is_that_without_tasks_bit_for_bit(with_tasks: Path, straight: Callable[..., Any]) -> None:
    assert outcome(with_tasks) == straight()


def test_they_are_measured_at_their_tokens_and_at_the_end_of_every_stage(with_tasks: Path) -> None:
    tokens = [r["tokens"] for r in records(with_tasks, "step")]
    passed = {next(t for t in tokens if t >= multiple) for multiple in range(1500, tokens[-1] + 1, 1500)}
    assert [at for at, _ in scores(with_tasks)] == sorted({*passed, *ENDS})
    for _, found in scores(with_tasks):
        assert [score["task"] for score in found] == ["head_slicing"]
        assert all(0 <= s["low"] <= s["value"] <= s["high"] <= 1 and s["items"] == 2 for s in found)


def test_the_last_scores_are_those_of_the_finished_run(with_tasks: Path) -> None:
    """Asked of the checkpoint, by the code that evaluates any model."""
    model = open_model(with_tasks, precision="fp32")
    after = measure(model, ["head_slicing"], items=2)
    _, last = scores(with_tasks)[-1]
    assert [(s.task, s.value, s.cut) for s in after if s.task == "head_slicing"] == [
        (score["task"], score["value"], score["cut"]) for score in last
    ]


def test_killed_and_resumed_is_straight(recipe: MakeRecipe, with_tasks: Path, tmp_path: Path) -> None:
    """While a stage's end is measured, which was saved before and is then measured anew; and in a stage."""
    made = recipe(*TASKS)
    for fault, boundary in (("train.tasks:kill@1", "before_growth"), ("train.after_step:kill@14", None)):
        assert in_child(lambda: run(made, tmp_path, prepare_tasks=prepare_tasks), fault) == -9
        assert newest(tmp_path).manifest.boundary == boundary
        measured = scores(tmp_path)
        assert measured == scores(with_tasks)[: len(measured)]
    run(made, tmp_path, prepare_tasks=prepare_tasks)
    assert outcome(tmp_path) == outcome(with_tasks)
    assert scores(tmp_path) == scores(with_tasks)


@dataclass
class Calling:
    """Tasks; when they are measured for the n-th time something happens."""

    tasks: Tasks
    at: int
    happens: Callable[[], None]

    def measure(
        self, engine: Engine, tokenizer: Tokenizer, context: int, turn: Callable[[], None]
    ) -> list[dict[str, Any]]:
        self.at -= 1
        if self.at == 0:
            self.happens()
        return self.tasks.measure(engine, tokenizer, context, turn)


@pytest.mark.parametrize("at", [1, 2], ids=["inside a stage", "at the end of the run"])
def test_a_signal_ends_measuring_and_the_same_command_measures_again(
    recipe: MakeRecipe, straight: Callable[..., Any], tmp_path: Path, at: int
) -> None:
    made = recipe(*ONE_STAGE, *TASKS)

    def signalled(made: Recipe) -> Tasks:
        return Calling(prepare_tasks(made), at, lambda: os.kill(os.getpid(), signal.SIGTERM))

    with pytest.raises(Preempted):
        run(made, tmp_path, prepare_tasks=signalled)
    assert [tokens for tokens, _ in scores(tmp_path)] == [1536, 3072][: at - 1]
    run(made, tmp_path, prepare_tasks=prepare_tasks)
    assert outcome(tmp_path) == straight(*ONE_STAGE)
    assert [tokens for tokens, _ in scores(tmp_path)] == [1536, 3072]


def test_measuring_is_paid_for(
    recipe: MakeRecipe, with_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its seconds are in the cost from then on, and it ends where the limit is reached."""
    measured = records(with_tasks, "tasks")
    for record in measured:
        steps = records(with_tasks, "step")
        before = next(s for s in steps if s["step"] == record["step"])
        assert record["train_seconds"] >= before["train_seconds"] + record["seconds"]
        assert all(s["train_seconds"] > record["train_seconds"] for s in steps if s["step"] > record["step"])

    def hours_pass() -> None:
        monkeypatch.setattr("growlm.train.measure.time.perf_counter", lambda: now() + 10_000)

    costly = recipe(*TASKS, "budget.price_per_hour=3600", "budget.max_cost=1000")

    now = time.perf_counter
    with pytest.raises(LimitReached):
        run(costly, tmp_path, prepare_tasks=lambda recipe: Calling(prepare_tasks(recipe), 1, hours_pass))
    assert scores(tmp_path) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_rank_asks_its_own_decoder_which_goes_on_training(
    recipe: MakeRecipe, with_tasks: Path, precision: str
) -> None:
    """In the middle of a ramp, with activations that training makes again: as the engine answers."""
    made = recipe(*TASKS, f"train.precision={precision}", "stages.3.layout.recompute='full'")
    state = TrainState.load(newest(with_tasks), made, ALONE)
    state.engine.set_mask(state.ramp_of(state.lineage, len(made.stages) - 1), 0.5)
    tokenizer = Tokenizer.load(Path(made.data.path) / "tokenizer.json")
    own, engine = model_of(state.engine, tokenizer, 32), EngineModel(state.engine, tokenizer, 32)
    assert isinstance(own, OwnModel)
    assert own.decoder is state.model
    tolerance = 1e-5 if precision == "fp32" else 2e-2
    for mine, its in zip(jobs.likelihoods(own, CHOICES), jobs.likelihoods(engine, CHOICES), strict=True):
        assert mine[0] == pytest.approx(its[0], rel=tolerance)
        assert mine[2:] == its[2:]
    written = jobs.completions(own, PROMPTS)
    if precision == "fp32":
        assert written == jobs.completions(engine, PROMPTS)
    x = torch.arange(32)[None]
    state.model.loss(x, x).backward()
    assert all(parameter.grad is not None for parameter in state.model.parameters())


def test_the_engine_answers_as_the_model_that_was_saved(recipe: MakeRecipe, with_tasks: Path) -> None:
    saved = open_model(with_tasks, precision="fp32")
    state = TrainState.load(newest(with_tasks), recipe(*TASKS), ALONE)
    tokenizer = Tokenizer.load(Path(recipe().data.path) / "tokenizer.json")
    engine = EngineModel(state.engine, tokenizer, saved.context)
    for mine, its in zip(jobs.likelihoods(engine, CHOICES), jobs.likelihoods(saved, CHOICES), strict=True):
        assert mine[1:] == its[1:]
        assert mine[0] == pytest.approx(its[0], rel=1e-5)
    assert jobs.completions(engine, PROMPTS) == jobs.completions(saved, PROMPTS)


def test_every_layout_answers_as_one_process(ranks: Ranks, recipe: MakeRecipe) -> None:
    model = config("llama", n_layers=2, vocab_size=320).to_dict()
    tokenizer = str(Path(recipe().data.path) / "tokenizer.json")
    asked = [[asdict(choice) for choice in CHOICES], [asdict(prompt) for prompt in PROMPTS]]
    layouts = [{}, {"dp": 2, "zero": 3}, {"tp": 2, "sequence_parallel": True}, {"pp": 2}]
    told = []
    for layout in layouts:
        whole = Layout(**layout)
        found = ranks.run(jobs.answers, model, asdict(whole), tokenizer, *asked, size=whole.world)
        assert all(one == found[0] for one in found)  # the same bits on every rank
        told.append(found[0])
    alone_likely, alone_written = told[0]
    for likely, written in told[1:]:
        assert written == alone_written
        for mine, its in zip(likely, alone_likely, strict=True):
            assert mine[1:] == its[1:]
            assert mine[0] == pytest.approx(its[0], rel=1e-6)


def test_two_ranks_train_and_measure_as_one(ranks: Ranks, recipe: MakeRecipe, tmp_path: Path) -> None:
    """Bit for bit, where training is."""
    path = write_recipe(tmp_path / "tiny.toml", Path(recipe().data.path))
    same = [*ONE_STAGE, *TASKS, "train.deterministic=true", "stages.0.micro_batch_size=2"]
    for size in (1, 2):
        assert ranks.run(jobs.train, str(path), same, str(tmp_path / f"{size}"), size=size) == [24] * size
    one, two = (outcome(tmp_path / name) for name in ("1", "2"))
    assert one["steps"] == two["steps"]
    assert scores(tmp_path / "1") == scores(tmp_path / "2") != []


def test_an_unknown_task_and_missing_data_are_refused_before_anything_is_touched(
    recipe: MakeRecipe, tmp_path: Path
) -> None:
    for tasks, said in (("['countin']", "counting"), ("['superglue_iq_rte']", "eval.task_data")):
        with pytest.raises(RecipeError, match=r"eval\.tasks") as refused:
            run(recipe(*ONE_STAGE, f"eval.tasks={tasks}"), tmp_path / "run", prepare_tasks=prepare_tasks)
        assert said in str(refused.value)
    assert not (tmp_path / "run").exists()
