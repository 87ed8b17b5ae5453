"""The page of operators is what the code says."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from growlm.growth.depth import DEPTH
from growlm.growth.operators import plan_growth
from growlm.growth.table import table_of_operators
from growlm.growth.width import WIDTH
from growlm.recipe.operators import Depth, Width
from tests.growth.tools import table
from tests.model.tiny import config

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == table_of_operators() + "\n", (
        "run: python -m growlm.growth.table > docs/operators.md"
    )


def test_a_recipe_can_name_every_operator() -> None:
    assert set(get_args(Width)) == set(WIDTH)
    assert set(get_args(Depth)) == set(DEPTH)


def test_every_operator_says_what_it_does_and_where_it_is_from() -> None:
    for operator in [*WIDTH.values(), *DEPTH.values()]:
        assert operator.doc.endswith(".")
        assert any(character.isdigit() for character in operator.source)


def test_depths_are_exact_as_they_say() -> None:
    c = config("flm", n_layers=4)
    for name, depth in DEPTH.items():
        growth = plan_growth(c, c.with_(n_layers=6), table(depth=name), distances=[0.0] * 4)
        assert growth.exact is depth.exact, name
