"""A recipe changed under a run: every key has a class, and it is the right one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from growlm.recipe.changes import STAGE, classify, recipe_diff
from growlm.recipe.keys import leaves
from growlm.recipe.load import load_recipe
from growlm.recipe.presets import presets

Write = Callable[..., Path]

# Override, the stage in training, the key reported, its class.
CHANGES = [
    ("name=other", 0, "name", "free"),
    ("seed=2", 0, "seed", "forbidden"),
    ("model.head_dim=16", 0, "model.head_dim", "forbidden"),
    ("model.family=flm", 0, "model.family", "forbidden"),
    ("model.tied=false", 0, "model.tied", "forbidden"),
    ("data.path=elsewhere", 0, "data.path", "free"),
    ("init=elsewhere", 0, "init", "free"),  # what lies there is compared when a run goes on
    ("optim.name=muon", 0, "optim.name", "forbidden"),  # another state than the one that was saved
    ("optim.lr=2e-3", 0, "optim.lr", "flag"),
    ("optim.beta2=0.9", 1, "optim.beta2", "flag"),
    ("schedule.kind=cosine", 1, "schedule.kind", "flag"),
    ("guard.window=64", 1, "guard.window", "flag"),
    ("eval.prompts=['a']", 1, "eval.prompts", "free"),
    ("checkpoint.keep=5", 1, "checkpoint.keep", "free"),
    ("train.device=cpu", 1, "train.device", "free"),
    ("train.threads=2", 1, "train.threads", "flag"),
    ("train.precision=fp32", 1, "train.precision", "flag"),
    ("train.deterministic=true", 1, "train.deterministic", "flag"),
    ("timeouts.step=9", 1, "timeouts.step", "free"),
    ("budget.price_per_hour=3", 1, "budget.price_per_hour", "free"),
    ("stages.a.tokens=2048", 0, "stages.a.tokens", "flag"),
    ("stages.a.tokens=2048", 1, "stages.a.tokens", "forbidden"),
    ("stages.b.tokens=2048", 0, "stages.b.tokens", "flag"),
    ("stages.b.lr=1e-4", 0, "stages.b.lr", "free"),
    ("stages.b.lr=1e-4", 1, "stages.b.lr", "flag"),
    ("stages.b.d_ff=96", 0, "stages.b.d_ff", "flag"),
    ("stages.b.d_ff=96", 1, "stages.b.d_ff", "forbidden"),
    ("stages.a.d_ff=48", 1, "stages.a.d_ff", "forbidden"),
    ("stages.a.seq_len=32", 1, "stages.a.seq_len", "forbidden"),
    ("stages.b.seq_len=32", 1, "stages.b.seq_len", "forbidden"),
    ("stages.b.seq_len=32", 0, "stages.b.seq_len", "forbidden"),  # a new longest context: another order
    ("stages.b.batch_size=8", 1, "stages.b.batch_size", "forbidden"),
    ("stages.b.batch_size=8", 0, "stages.b.batch_size", "flag"),
    ("stages.a.layout.dp=2", 1, "stages.a.layout.dp", "free"),
    ("stages.b.layout.tp=2", 1, "stages.b.layout.tp", "free"),
    ("stages.b.layout.pp=2", 0, "stages.b.layout.pp", "free"),
    ("stages.b.growth.operator=clone", 0, "stages.b.growth.operator", "flag"),
    ("stages.b.growth.operator=clone", 1, "stages.b.growth.operator", "forbidden"),
]


@pytest.mark.parametrize(("override", "stage", "key", "cls"), CHANGES)
def test_a_change_has_its_class(write: Write, override: str, stage: int, key: str, cls: str) -> None:
    alone = ["stages.a.micro_batch_size=2"]  # a deterministic run must say it
    changes = recipe_diff(load_recipe(write(), alone), load_recipe(write(), [*alone, override]), stage)
    assert [(change.key, change.cls) for change in changes] == [(key, cls)]


def test_no_change_and_values_written_out_are_no_difference(write: Write) -> None:
    old = load_recipe(write())
    same = ["stages.a.micro_batch_size=4", "stages.b.vocab_size=64", "stages.b.growth.moments=grow"]
    assert recipe_diff(old, load_recipe(write(), same), 1) == []


def test_a_mixture_is_judged_where_it_is_drawn(write: Write) -> None:
    def diff(new: list[str], stage: int, old: tuple[str, ...] = ()) -> dict[str, str]:
        changes = recipe_diff(load_recipe(write(), list(old)), load_recipe(write(), [*old, *new]), stage)
        return {change.key: change.cls for change in changes}

    inherited = {"data.mixture.en": "free", "stages.a.mixture.en": "forbidden"}
    assert diff(["data.mixture.en=2.0"], 0) == inherited | {"stages.b.mixture.en": "free"}
    assert diff(["data.mixture.en=2.0"], 1) == inherited | {"stages.b.mixture.en": "forbidden"}
    own = "stages.b.mixture={en = 3.0, zh = 1.0}"
    assert diff([own], 0) == {"stages.b.mixture.en": "free"}
    assert diff([own], 1) == {"stages.b.mixture.en": "forbidden"}
    both = ("stages.a.mixture={en = 1.0, zh = 1.0}",)
    assert diff(["data.mixture.en=2.0"], 1, both) == {"data.mixture.en": "free"}, "no stage draws it"


def test_a_context_between_the_others_may_change_in_a_stage_to_come(write: Write) -> None:
    text = write().read_text(encoding="utf-8")
    longer = write(text + text[text.index('[[stages]]\nname = "b"') :].replace('"b"', '"c"'))
    old = load_recipe(longer, ["stages.c.seq_len=64"])
    new = load_recipe(longer, ["stages.c.seq_len=64", "stages.b.seq_len=32"])
    assert [(change.key, change.cls) for change in recipe_diff(old, new, 0)] == [("stages.b.seq_len", "flag")]


def test_a_stage_added_at_the_end_needs_the_flag_and_a_removed_past_one_is_forbidden(write: Write) -> None:
    text = write().read_text(encoding="utf-8")
    cut = text[: text.index('[[stages]]\nname = "b"')]
    short, long = load_recipe(write(cut)), load_recipe(write(text))
    added = recipe_diff(short, long, 0)
    assert {change.cls for change in added} == {"free", "flag"}
    assert all(change.key.startswith("stages.b.") and change.old is None for change in added)
    assert "forbidden" in {change.cls for change in recipe_diff(long, short, 1)}


def test_every_key_of_every_preset_has_a_class() -> None:
    for path in presets().values():
        recipe = load_recipe(path)
        for key in leaves(recipe.model_dump()):
            assert {classify(key, stage) for stage in range(3)} <= {"free", "flag", "forbidden"}
    assert dict(STAGE)["*"] == ("forbidden", "forbidden", "flag")
