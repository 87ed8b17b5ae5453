"""What the tests of tasks run in the shared ranks: requests, put to an engine over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from growlm.data.tokenizer import Tokenizer
from growlm.evaluate.engine_model import EngineModel
from growlm.inference.requests import Choice, Completion, Likelihood, Model, Prompt
from growlm.parallel.world import join
from growlm.plan.layout import Layout
from growlm.recipe.shape import ModelConfig
from tests.parallel.jobs import Training, engine_of

Told = list[list[Any]]


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
