"""Layouts in a recipe: how they are written, and that what cannot be laid out is refused in its line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from growlm.errors import RecipeError
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import LayoutTable

Write = Callable[..., Path]

AUTO = LayoutTable()  # pyright: ignore[reportCallIssue]


def test_auto_is_the_same_as_nothing_and_a_table_with_nothing(write: Write) -> None:
    recipes = [
        load_recipe(write()),
        load_recipe(write(line24='batch_size = 4\nlayout = "auto"')),
        load_recipe(write(line24="batch_size = 4\n[stages.layout]")),
        load_recipe(write(), ["stages.a.layout=auto"]),
        load_recipe(write(), ['stages.a.layout="auto"']),
        load_recipe(write(line24="batch_size = 4\nlayout = { tp = 2 }"), ["stages.a.layout=auto"]),
    ]
    assert all(recipe == recipes[0] for recipe in recipes)
    assert recipes[0].stages[0].layout == AUTO


def test_a_layout_is_a_table_or_overrides(write: Write) -> None:
    written = load_recipe(write(line24="batch_size = 4\n[stages.layout]\ndp = 2\nzero = 3"))
    assert written == load_recipe(write(), ["stages.a.layout={ dp = 2, zero = 3 }"])
    assert written == load_recipe(write(), ["stages.a.layout.dp=2", "stages.0.layout.zero=3"])
    both = ["stages.a.layout=auto", "stages.a.layout.dp=2", "stages.a.layout.zero=3"]
    assert written == load_recipe(write(), both)
    assert (written.stages[0].layout.dp, written.stages[0].layout.zero) == (2, 3)


# What stands for stage a's layout (from line 25 on), more of line 24, what the error says and advises.
BAD = [
    (
        'layout = "fast"',
        "",
        'stages.a.layout is "fast", not a table',
        '[stages.a.layout], or layout = "auto"',
    ),
    ("layout = { ddp = 2 }", "", "unknown key `ddp` in [stages.a.layout]", "did you mean `dp`?"),
    ("layout = { zero = 4 }", "", "zero is 4, not a whole number of at least 0 and at most 3", "write a"),
    ('layout = { recompute = "ful" }', "", 'recompute is "ful"', 'did you mean `recompute = "full"`?'),
    ("layout = { tp = 2 }", "", "tp = 2 does not divide n_kv_heads = 1", "write tp = 1"),
    ("layout = { tp = 2 }", "vocab_size = 63\nn_kv_heads = 2", "divide vocab_size = 63", "vocab_size = 64"),
    ("layout = { tp = 2 }", "n_kv_heads = 2\nd_ff = 31", "tp = 2 does not divide d_ff = 31", "write tp = 1"),
    ("layout = { tp = 2 }", "n_kv_heads = 2\nseq_len = 15", "seq_len = 15", "sequence_parallel = false"),
    ("layout = { pp = 2 }", "", 'pp 2 is 2 runs of blocks, and stage 0 "a" has 1', "write pp = 1 or less"),
    ("layout = { interleave = 2 }", "", "interleave = 2 and no pipeline", "write pp = 2 or more"),
    ("layout = { pp = 2, interleave = 3 }", "n_layers = 4", "pp 2 x interleave 3 is 6 runs", "write pp = 1"),
    ("layout = { pp = 2, zero = 2 }", "n_layers = 4", "has zero = 2 and pp = 2", "write zero = 1, or pp = 1"),
    ("layout = { dp = 3 }", "", "batch_size 4, not a multiple of dp 3", "write dp = 2, or batch_size = 6"),
    ("layout = { dp = 4 }", "micro_batch_size = 2", "dp 4 x micro_batch_size 2", "dp = 2, or batch_size = 8"),
    ("layout = { dp = 4, replicas = 3 }", "", "dp = 4, not a multiple of replicas = 3", "write replicas = 2"),
    ("layout = { zero = 0, replicas = 2 }", "", "with zero = 0 all are copies", "leave replicas out"),
]


@pytest.mark.parametrize(("layout", "more", "what", "fix"), BAD, ids=[f"{b[0]} {b[1]}" for b in BAD])
def test_a_layout_that_does_not_fit_is_refused_in_its_line(
    write: Write, layout: str, more: str, what: str, fix: str
) -> None:
    stage = {"n_kv_heads": "1", "d_ff": "32", "n_layers": "1", "seq_len": "16", "batch_size": "4"}
    stage |= dict(line.split(" = ") for line in more.split("\n") if line)
    text = write().read_text(encoding="utf-8").split('[[stages]]\nname = "a"')[0]
    head = f'{text}[[stages]]\nname = "a"\nd_model = 16\nn_heads = 2\ntokens = 1024\n'
    body = "".join(f"{name} = {value}\n" for name, value in stage.items())
    path = write(f"{head}{body}{layout}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.where == f"{path}:{(head + body).count(chr(10)) + 1}"
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_tensor_parallel_stage_may_keep_time_whole(write: Write) -> None:
    layout = "n_layers = 1\nlayout = { tp = 2, sequence_parallel = false }"
    assert load_recipe(write(line19="n_kv_heads = 2", line21=layout)).stages[0].layout.tp == 2


@pytest.mark.parametrize(
    ("layout", "field"), [("{ tp = 2 }", "tp"), ("{ pp = 2 }", "pp"), ("{ zero = 1 }", "zero")]
)
def test_a_deterministic_run_is_data_parallel_alone(write: Write, layout: str, field: str) -> None:
    alone = ["train.deterministic=true", "stages.a.micro_batch_size=2"]
    assert load_recipe(write(), [*alone, "stages.b.layout={ dp = 2, zero = 0 }"]).train.deterministic
    with pytest.raises(RecipeError, match=f"has {field} = . in a deterministic run"):
        load_recipe(write(), [*alone, f"stages.b.layout={layout}"])


def test_a_deterministic_run_says_its_micro_batch(write: Write) -> None:
    with pytest.raises(RecipeError, match='stage 0 "a" leaves micro_batch_size') as caught:
        load_recipe(write(), ["train.deterministic=true"])
    assert caught.value.where.endswith(":15")
