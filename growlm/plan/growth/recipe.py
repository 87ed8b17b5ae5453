"""A planned schedule as a recipe that is ready to run, with the reasons for what is in it. No torch."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from growlm.model.parameters import axis_sizes
from growlm.plan.growth.answer import Answer, loss_interval
from growlm.plan.growth.request import RAMP_STEPS, Request
from growlm.plan.growth.rungs import Rung
from growlm.plan.growth.search import Schedule
from growlm.plan.growth.step_law import step_law_lr
from growlm.plan.ticks import count
from growlm.recipe.schema import Recipe
from growlm.recipe.template import recipe_toml

_DECAY = 0.2


def schedule_recipe(schedule: Schedule, asked: Request, name: str, *, like: Schedule | None = None) -> Recipe:
    """The recipe of a schedule: Llama family, CompleteP from the first stage's shape, WSD, AdamW.

    `like`: take base shape and learning rate of that schedule, so that the two runs can be compared.
    """
    steps = [max(1, round(tokens / _tokens_per_step(asked))) for tokens in schedule.tokens]
    total = sum(steps)
    data: dict[str, Any] = {
        "name": name,
        "model": {
            "family": "llama",
            "head_dim": asked.head_dim,
            "vocab_size": asked.vocab_size,
            "parametrization": "completep",
        },
        "data": {"path": f"data/{name}", "mixture": {"text": 1.0}},
        "optim": {"lr": _rounded(base_lr(like or schedule)), "weight_decay": 0.1},
        "schedule": {
            "kind": "wsd",
            "warmup_steps": min(2000, max(10, total // 100)),
            "decay_share": _DECAY,
            "min_lr_ratio": 0.01,
        },
        "eval": {
            "every_tokens": max(1, total // 100) * _tokens_per_step(asked),
            "tokens": min(2**20, 64 * asked.work.seq_len),
        },
        "checkpoint": {"every_seconds": 1800.0},
        "train": {"precision": "bf16", "device": "cuda"},
        "stages": [
            _stage(rung, n, first=k == 0, asked=asked)
            for k, (rung, n) in enumerate(zip(schedule.rungs, steps, strict=True))
        ],
    }
    if like is not None:
        base = like.rungs[0].config
        data["model"] |= {
            "mup_base_d_model": base.d_model,
            "mup_base_hidden": [float(axis_sizes(base)[axis]) for axis in ("q", "kv", "ffn")],
            "mup_base_n_layers": base.n_layers,
        }
    if asked.price is not None:
        data["budget"] = {"price_per_hour": _rounded(asked.price * asked.setting.n_gpus, 6)}
    return Recipe.model_validate(data)


def recipe_texts(answer: Answer, name: str) -> dict[str, str]:
    """The recipe of the schedule, then those of the pilot's two runs if there is one, by name."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", name).lstrip("_.-") or "plan"
    asked, words = answer.asked, answer.verdict.words
    texts = {name: recipe_text(schedule_recipe(answer.schedule, asked, name), answer.schedule, asked, words)}
    if answer.pilot is None:
        return texts
    for part, schedule in (("grown", answer.pilot.grown), ("alone", answer.pilot.alone)):
        run = f"{name}-pilot-{part}"
        small = answer.pilot.asked
        about = f"this is one of the two runs of the pilot. {words}"
        recipe = schedule_recipe(schedule, small, run, like=answer.pilot.grown)
        texts[run] = recipe_text(recipe, schedule, small, about)
    return texts


def recipe_text(recipe: Recipe, schedule: Schedule, asked: Request, verdict: str) -> str:
    """The recipe as TOML, with the plan and its assumptions in front."""
    sizes = " -> ".join(count(rung.params) for rung in schedule.rungs)
    days = schedule.seconds / 86400
    money = asked.money(schedule.seconds)
    bill = "" if money is None else f", {money:,.0f} at {asked.price:g} an hour and GPU"
    low, high = loss_interval(schedule)
    vocabulary = f"--vocab-size {recipe.model.vocab_size}"
    notes = [
        f"Planned by `growlm plan` for {asked.setting.n_gpus} x {asked.setting.gpu.name}: {sizes} parameters "
        f"(embedding included) on {count(sum(schedule.tokens))} tokens, {days:.1f} days{bill}.",
        f"Predicted loss {low:.3f} to {high:.3f} nats per token on data like Chinchilla's.",
        f"Verdict: {verdict}",
        "Data: prepare it, or name a prepared folder and its sources in [data] below: "
        f"growlm data prepare {recipe.data.path} --source text=FOLDER_OR_FILES {vocabulary}",
        "Learning rate: the base shape is the first stage's; every later stage gets its own by CompleteP. "
        "It is the largest that Step Law (2503.04715: 1.79 N^-0.713 D^0.307, with batches of 0.58 D^0.571 "
        "tokens, standard parametrization) allows every stage's matrices, N without the embedding, D all "
        "tokens. Better: growlm search THIS_FILE finds it on a proxy.",
        "Growth: behind masks that open over some steps; the learning rate goes on, and decays only in the "
        f"last {_DECAY:.0%} of the steps.",
    ]
    head = "".join(
        textwrap.fill(note, 108, initial_indent="# ", subsequent_indent="#   ") + "\n" for note in notes
    )
    return head + "#\n" + recipe_toml(recipe)


def base_lr(schedule: Schedule) -> float:
    """The peak learning rate at the first stage's shape.

    A hidden matrix of a stage k times as wide trains at 1/k of it, so k times Step Law's rate of that stage
    is the most it may be; the least over all stages is taken.
    """
    tokens, first = sum(schedule.tokens), schedule.rungs[0].config.d_model
    return min(
        step_law_lr(_without_embedding(rung), tokens) * rung.config.d_model / first for rung in schedule.rungs
    )


def _without_embedding(rung: Rung) -> int:
    return rung.params - rung.config.vocab_size * rung.config.d_model


def _stage(rung: Rung, steps: int, *, first: bool, asked: Request) -> dict[str, Any]:
    config, layout = rung.config, rung.layout
    stage: dict[str, Any] = {
        "name": f"{rung.params / 1e6:.0f}m",
        "d_model": config.d_model,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "d_ff": config.d_ff,
        "n_layers": config.n_layers,
        "tokens": steps * _tokens_per_step(asked),
        "seq_len": asked.work.seq_len,
        "batch_size": asked.work.batch_size,
        "micro_batch_size": layout.micro_batch,
        "layout": {"dp": layout.dp, "tp": layout.tp, "pp": layout.pp, "zero": layout.zero},
    }
    if layout.recompute != "none":
        stage["layout"]["recompute"] = layout.recompute
    if not first:
        stage["growth"] = {
            "operator": "masked",
            "depth": "zero_block",
            "ramp_steps": min(RAMP_STEPS, steps // 2),
        }
    return stage


def _tokens_per_step(asked: Request) -> int:
    return asked.work.batch_size * asked.work.seq_len


def _rounded(value: float, digits: int = 2) -> float:
    return float(f"{value:.{digits}g}")
