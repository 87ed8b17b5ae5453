"""One benchmark asked through lm-evaluation-harness: its own prompts, order of documents and metrics.

The harness gets a task's rows from a function (`custom_dataset`) instead of the hub; nothing else of the task
is changed, but for splits that are not there and the number of examples.
"""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.tasks
import numpy as np
import torch
from datasets import Dataset
from datasets.exceptions import DatasetsError

from growlm.evaluate.harness import HarnessModel
from growlm.evaluate.knowledge.benchmarks import Benchmark, Rows
from growlm.evaluate.knowledge.sources import Loaded

SEED = 1234
"""The harness's own for the choice of examples."""
HUB_ERRORS = (OSError, DatasetsError, ValueError, RuntimeError)
"""Of `hub_tasks`: no network or no such set; a set that is now written otherwise; one that needs code."""
Samples = dict[str, list[dict[str, Any]]]
"""By task: what the harness logs of each document."""

_THEIRS = Path(lm_eval.tasks.__file__).parent
_FOLDERS = ("arc", "hellaswag", "truthfulqa", "super_glue", "mmlu/default", "cmmlu", "ceval")
_OURS = Path(__file__).parent / "tasks"
_evaluate: Any = lm_eval.evaluate


def ask(lm: HarnessModel, tasks: dict[str, Any], limit: int | None = None) -> Samples:
    """Ask the tasks of `tasks_of` or `hub_tasks`, of each the first `limit` documents.

    Leaves the global random states and loggers as they were.
    """
    with quietly(), np.errstate(all="ignore"):
        return _evaluate(lm=lm, task_dict=tasks, limit=limit, bootstrap_iters=0, log_samples=True)["samples"]


def tasks_of(loaded: Loaded, shots: int) -> Any:
    """The harness's tasks with the rows of `loaded` and so many examples."""
    return _built(
        [{"task": task, **_overrides(loaded, rows, shots)} for task, rows in loaded.splits.items()], shots
    )


def hub_tasks(benchmark: Benchmark, shots: int) -> Any:
    """The same with the harness's own data, which it loads from the hub."""
    return _built([{"task": task, **benchmark.changes} for task in benchmark.harness_tasks()], shots)


def _built(entries: list[dict[str, Any]], shots: int) -> Any:
    with quietly():
        # a group is how the harness lets known tasks be loaded with changes
        found = _manager().load([{"group": "growlm", "task": entries}])
    for task in found["tasks"].values():
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=SEED)
    return {"tasks": found["tasks"]}


@cache
def _manager() -> lm_eval.tasks.TaskManager:
    """Of the folders that are needed: to look through all of the harness's takes seconds."""
    folders = [_THEIRS / folder for folder in _FOLDERS]
    return lm_eval.tasks.TaskManager(include_path=[*folders, _OURS], include_defaults=False)


def _overrides(loaded: Loaded, rows: dict[str, Rows], shots: int) -> dict[str, Any]:
    """What of a task's configuration depends on the rows that are there."""
    split, examples = loaded.benchmark.split, loaded.examples if shots else None
    kept = {name: rows[name] for name in {split, examples} - {None}}
    changed: dict[str, Any] = {"custom_dataset": _dataset(kept), **loaded.benchmark.changes}
    for name, kind in (("train", "training_split"), ("validation", "validation_split")):
        if name != split and name in (*loaded.benchmark.examples, "validation"):
            changed[kind] = name if name in kept else None
    if "dev" in loaded.benchmark.examples:
        changed["fewshot_split"] = examples
    return changed


def _dataset(splits: dict[str, Rows]) -> Callable[..., dict[str, Dataset]]:
    def custom_dataset(**_: object) -> dict[str, Dataset]:
        return {split: Dataset.from_list(rows) for split, rows in splits.items()}

    return custom_dataset


@contextmanager
def quietly() -> Iterator[None]:
    """Without the harness's bars, warnings and log; global random states are the same behind as before."""
    ours, numpys, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        random.setstate(ours)
        np.random.set_state(numpys)
        torch.set_rng_state(torchs)
