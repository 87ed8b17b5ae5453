"""The suite for use elsewhere: JSON lines, and tasks of lm-evaluation-harness around them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from growlm.checkpoint.disk import disk_errors, make_dirs, write_atomic
from growlm.errors import RecipeError
from growlm.evaluate.iq.asking import Planned, prompt_of
from growlm.evaluate.iq.scoring import LIKELIEST
from growlm.evaluate.iq.task import VERSION, Item, Setup

TAG = "growlm_iq"
"""Of all tasks in an exported folder, for `--tasks`."""


def write_export(
    folder: Path, form: Literal["harness", "jsonl"], plan: Sequence[Planned], setup: Setup
) -> list[str]:
    """Write each task's items as `TASK.jsonl`; with `harness` also `TASK.yaml`. What to tell the user.

    A .yaml has the whole path of its .jsonl, because the harness looks for a relative one in the folder it is
    started in; so a folder that was moved is to be exported again, or its paths replaced.

    Raises RecipeError: the folder has something in it. DiskError.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError("The folder is not empty", where=str(folder), fix="--export NEW_FOLDER")
    with disk_errors(folder):
        make_dirs(folder)
    for planned in plan:
        path = folder / f"{planned.label}.jsonl"
        lines = [json.dumps(_document(planned, item), ensure_ascii=False) for item in planned.items]
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
        if form == "harness":
            for name, told in _tasks(planned, path, setup).items():
                write_atomic(folder / f"{name}.yaml", _yaml(told).encode())
    counted = f"{sum(len(planned.items) for planned in plan):,} items of {len(plan)} tasks in {folder}"
    if form == "jsonl":
        return [counted]
    return [
        counted,
        f"lm_eval --model hf --model_args pretrained=MODEL --include_path {folder} --tasks {TAG}",
    ]


def _document(planned: Planned, item: Item) -> dict[str, Any]:
    """An item: everything one needs to ask it and to judge the answer."""
    task = planned.task
    told: dict[str, Any] = {"task": planned.label, "index": item.index, "prompt": item.prompt}
    told |= {"delimiter": item.delimiter, "target": item.target}
    told |= {"stop": list(task.stop), "pattern": task.pattern, "max_tokens": _longest(planned)}
    if item.choices:
        told |= {"choices": list(item.choices), "gold": item.choices.index(item.target)}
    if item.bucket:
        told["bucket"] = item.bucket
    return told if item.chance is None else told | {"chance": item.chance}


def _longest(planned: Planned) -> int:
    """The harness has one limit for all items of a task."""
    return max(prompt_of(planned.task, item).max_tokens for item in planned.items)


def _tasks(planned: Planned, path: Path, setup: Setup) -> dict[str, dict[str, Any]]:
    """The harness's configurations by file name: the written answer, and the likeliest choice."""
    common: dict[str, Any] = {
        "tag": TAG,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "metadata": {"version": float(VERSION), "seed": setup.seed, "dials": dict(setup.dials)},
    }
    found = {planned.label: {"task": f"growlm_{planned.label}", **common, **_written(planned)}}
    first = planned.items[0]
    if first.choices:
        name = f"{planned.label}_{LIKELIEST}"
        found[name] = {
            "task": f"growlm_{name}",
            **common,
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "target_delimiter": first.delimiter,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    return found


def _written(planned: Planned) -> dict[str, Any]:
    extract = [{"function": "regex", "regex_pattern": planned.task.pattern}, {"function": "take_first"}]
    return {
        "output_type": "generate_until",
        "doc_to_target": "target",
        "generation_kwargs": {
            "until": list(planned.task.stop),
            "do_sample": False,
            "max_gen_toks": _longest(planned),
        },
        "filter_list": [{"name": "answer", "filter": extract}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _yaml(told: dict[str, Any]) -> str:
    """YAML: a line for each key, its value as JSON, which YAML contains."""
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in told.items())
