"""New sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest

from growlm.errors import RecipeError
from growlm.recipe.shape import ModelConfig
from growlm.recipe.sizes import growth_table, parse_sizes

OLD = ModelConfig(
    family="llama", d_model=576, n_heads=9, n_kv_heads=3, head_dim=64, d_ff=1536, n_layers=30, vocab_size=320
)


@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        (
            "width=2x,depth=1.5x",
            {"d_model": 1152, "n_heads": 18, "n_kv_heads": 6, "d_ff": 3072, "n_layers": 45},
        ),
        ("d_model=600, n_layers=2x", {"d_model": 600, "n_layers": 60}),
        ({"d_ff": 2000, "vocab_size": "1.1x"}, {"d_ff": 2000, "vocab_size": 352}),
        ({"head_dim": "2x"}, {"head_dim": 128}),
        ("depth=1x", {}),
    ],
)
def test_sizes(sizes: Any, changes: dict[str, int]) -> None:
    assert parse_sizes(sizes, OLD) == OLD.with_(**changes)


def test_one_query_head_for_each_key_value_head_stays_so() -> None:
    old = OLD.with_(n_kv_heads=9)
    assert parse_sizes("n_heads=12", old) == old.with_(n_heads=12, n_kv_heads=12)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ("width=1.5x", "n_heads = 1.5x is 13.5"),
        ("d_model", "'d_model' is not a new size"),
        ("d_model=1152,d_model=576", "d_model is given twice"),
        ("d_model=wide", "d_model = wide is not a size"),
        ("d_model=", "'d_model=' is not a new size"),
        ("n_layers=0", "n_layers = 0 is 0"),
        ("layers=3", "'layers' is not a size of a model"),
        ("max_positions=2x", "max_positions = 2x is not a size"),
        ("n_heads=10", "10 query heads cannot share 3"),
        ("width=2x,width=3x", "width is given twice"),
        ("width=2x,d_model=1200", "d_model is given twice"),
        ("n_heads=18,width=3x", "n_heads is given twice"),
        ("width=1e30x", "d_model = 1e30x is not a size"),
        ("width=1e999999999x", "is not a size"),
        ("width=99999999999x", "d_model = 99999999999x is too large"),
        ("d_model=3000000000", "is too large"),
        ("width=0.5x", "growth only adds units"),
        ("", "'' is not a new size"),
    ],
)
def test_refused(sizes: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_sizes(sizes, OLD)
    assert said in str(error.value)


def test_settings() -> None:
    assert growth_table({"operator": "lemon", "split": 0.2}).effective_split == 0.2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"operator": "magic"}, "operator = 'magic'"),
        ({"operator": "clonee"}, 'did you mean clone? write one of "masked"'),
        ({"noise": "much"}, "noise = 'much'"),
        ({"split": 2}, "write a number above 0 and below 1"),
        ({"noize": 1}, "did you mean noise?"),
        ({"colour": 1}, "there are: operator, depth"),
        ({"nose": 0.1}, "there is no setting nose"),
    ],
)
def test_refused_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        growth_table(settings)
    assert said in str(error.value)
