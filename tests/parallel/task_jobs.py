"""What the tests of tasks run in the shared ranks: requests, put to an engine over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from growlm.data.tokenizer import Tokenizer
from growlm.evaluate.engine_model import EngineModel
from growlm.evaluate.training import prepare_tasks
from growlm.inference.requests import Choice, Completion, Likelihood, Model, Prompt
from growlm.parallel.world import join
from growlm.plan.layout import Layout
from growlm.recipe.load import load_recipe
from growlm.recipe.shape import ModelConfig
from growlm.train.supervisor import run
from tests.parallel.jobs import Training, engine_of

Told = list[list[Any]]


def train(recipe: str, overrides: list[str], folder: str) -> int:
    """A run of a recipe file with its tasks; its last step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.train.supervisor.peak_tflops", lambda *_: 1.0)
        return run(load_recipe(Path(recipe), overrides), Path(folder), prepare_tasks=prepare_tasks).step


def answers(
    config: dict[str, Any],
    layout: dict[str, Any],
    tokenizer: str,
    choices: list[dict[str, Any]],
    prompts: list[dict[str, Any]],
) -> tuple[Told, Told]:
    """Likelihoods and completions, in the order of their requests."""
    with join("cpu") as world:
        engine = engine_of(ModelConfig(**config), Layout(**layout), Training(), world)
        model = EngineModel(engine, Tokenizer.load(Path(tokenizer)), context=32)
        written = [Prompt(**{**prompt, "stop": tuple(prompt["stop"])}) for prompt in prompts]
        return likelihoods(model, [Choice(**choice) for choice in choices]), completions(model, written)


def likelihoods(model: Model, choices: Sequence[Choice]) -> Told:
    """logprob, greedy, tokens, cut of each."""
    found = {}
    for index, answer in model.likelihoods(choices):
        assert isinstance(answer, Likelihood)
        found[index] = [answer.logprob, answer.greedy, answer.tokens, answer.cut]
    return [found[index] for index in range(len(choices))]


def completions(model: Model, prompts: Sequence[Prompt]) -> Told:
    """text, tokens, finish, cut of each."""
    found = {}
    for index, answer in model.completions(prompts):
        assert isinstance(answer, Completion)
        found[index] = [answer.text, answer.tokens, answer.finish, answer.cut]
    return [found[index] for index in range(len(prompts))]
