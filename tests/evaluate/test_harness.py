"""Our models in lm-evaluation-harness, beside its own backend for models of transformers."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from growlm.evaluate.files import Folder
from growlm.evaluate.harness import HarnessModel
from growlm.evaluate.knowledge.ask import ask, tasks_of
from growlm.evaluate.knowledge.benchmarks import BENCHMARKS
from growlm.evaluate.knowledge.scores import items
from growlm.evaluate.knowledge.sources import load
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt
from tests.evaluate.knowledge.sets import ARC, HELLASWAG, TRUTHFULQA, exam, write
from tests.evaluate.llama import save_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def models(folder: Path) -> tuple[HarnessModel, Any]:
    """Ours and theirs."""
    theirs_of: Any = importlib.import_module("lm_eval.models.huggingface").HFLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = theirs_of(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    return HarnessModel(pretrained=str(folder), precision="fp32", device="cpu"), theirs


def instances(kind: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]


def test_benchmarks_score_the_same(models: tuple[HarnessModel, Any], tmp_path: Path) -> None:
    ours, theirs = models
    write(tmp_path / "arc-challenge-test.jsonl", ARC)
    write(tmp_path / "arc-challenge-train.jsonl", ARC)
    write(tmp_path / "hellaswag-val.jsonl", HELLASWAG)
    write(tmp_path / "mc_task.json", TRUTHFULQA)
    write(tmp_path / "mmlu-test.jsonl", exam(["anatomy"]))
    write(tmp_path / "mmlu-dev.jsonl", exam(["anatomy"], 5))
    for name in ("arc_challenge", "hellaswag", "truthfulqa", "mmlu"):
        loaded = load(BENCHMARKS[name], Folder(tmp_path).find)
        assert loaded is not None
        shots = 2 if loaded.examples else 0
        mine = ask(ours, tasks_of(loaded, shots), limit=5)
        expected = ask(theirs, tasks_of(loaded, shots), limit=5)
        for task, logged in expected.items():
            for found, right in zip(items(task, mine[task], ours), logged, strict=True):
                assert found.logprobs == pytest.approx(
                    [each[0] for each in right["filtered_resps"]], abs=1e-4
                )
                assert found.values == pytest.approx({m: right[m] for m in right["metrics"]}, abs=1e-5)


def test_whole_texts_and_generation_are_the_same(models: tuple[HarnessModel, Any]) -> None:
    ours, theirs = models
    texts = [("the cat sat on the mat. " * 100,), ("a dog",)]
    asked = instances("loglikelihood_rolling", texts)
    told = theirs.loglikelihood_rolling(asked, disable_tqdm=True)
    assert ours.loglikelihood_rolling(asked) == pytest.approx(told, rel=1e-5)
    settings = {"until": [" the", "\n"], "max_gen_toks": 12, "do_sample": False}
    prompts = [(text, settings) for text in ("the cat sat", "and the dog", "on the hat")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = theirs.generate_until(instances("generate_until", prompts), disable_tqdm=True)
    assert ours.generate_until(instances("generate_until", prompts)) == written


def test_the_harness_knows_our_models_by_name() -> None:
    assert get_model("growlm") is HarnessModel


class Counting:
    """A `Model` that says how it was asked, and fails at what begins with an x."""

    context, identity = 10, "counting"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        self.asked += requests
        for i, request in enumerate(requests):
            yield i, Failed("no") if request.context[:1] == "x" else Likelihood(-float(i), False, 1)

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        self.asked += requests
        for i, request in enumerate(requests):
            yield i, Failed("no") if request.text[:1] == "x" else Completion(f"{request.seed}", 1, "stop")


def test_the_same_is_asked_once_and_failures_are_impossible() -> None:
    model = Counting()
    lm = HarnessModel(model)
    arguments = [("a", " b"), ("x", " b"), ("a", " b"), ("a", " c")]
    found = lm.loglikelihood(instances("loglikelihood", arguments))
    assert found == [(0.0, False), (-float("inf"), False), (0.0, False), (-2.0, False)]
    assert model.asked == [Choice("a", " b"), Choice("x", " b"), Choice("a", " c")]


def test_settings_of_generation() -> None:
    model = Counting()
    lm = HarnessModel(model)
    sampled = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_gen_toks": 5}
    asked = [
        ("a", {"until": "\n"}),
        ("x", {"until": ["."], "max_gen_toks": 3}),
        ("a", sampled),
        ("a", sampled),
    ]
    assert lm.generate_until(instances("generate_until", asked)) == ["0", "", "0", "1"]
    assert model.asked == [
        Prompt("a", 256, ("\n",)),
        Prompt("x", 3, (".",)),
        Prompt("a", 5, (), 0.7, 0.9, seed=0),
        Prompt("a", 5, (), 0.7, 0.9, seed=1),
    ]
