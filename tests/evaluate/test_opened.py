"""Several models one after the other."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from growlm.evaluate.iq.suite import plan, run
from growlm.evaluate.iq.task import Setup
from growlm.evaluate.models import models_of
from growlm.evaluate.opened import ask_each
from growlm.inference.requests import Model, Prompt
from growlm.inference.workers import Workers
from tests.evaluate.llama import save_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "llama"
    folder.mkdir()
    save_llama(folder)
    return folder


def test_a_model_is_gone_before_the_next_is_opened(folder: Path, tmp_path: Path) -> None:
    setup = Setup(items=1)
    planned = plan(["counting"], setup)
    before: list[weakref.ref[Model]] = []

    def ask(model: Model, facts: Mapping[str, Any]) -> None:
        assert all(ref() is None for ref in before)
        run(model, facts, planned, setup, tmp_path / facts["name"], quiet=True)
        before.append(weakref.ref(model))

    ask_each(models_of([f"a={folder}", f"b={folder}"]), ask, device="cpu")
    assert len(before) == 2


@pytest.mark.slow
def test_processes_end_with_their_model(folder: Path) -> None:
    processes: list[Any] = []

    def ask(model: Model, facts: Mapping[str, Any]) -> None:  # noqa: ARG001
        assert isinstance(model, Workers)
        processes.extend(worker._process for worker in model._workers)
        assert len(list(model.completions([Prompt("a", 2)]))) == 1
        raise KeyError("an evaluation that fails")

    with pytest.raises(KeyError):
        ask_each(models_of([str(folder)]), ask, workers=2, device="cpu")
    assert len(processes) == 2
    assert all(process.poll() is not None for process in processes)
