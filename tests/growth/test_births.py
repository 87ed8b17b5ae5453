"""Every unit and block has an optimizer clock that starts when it was born."""

from __future__ import annotations

from growlm.growth.apply import expand_births, grow_births
from growlm.growth.operators import plan_growth
from tests.growth.tools import table
from tests.model.tiny import config

FIRST = config("llama")
SECOND = FIRST.with_(d_model=20, d_ff=30, n_heads=6, n_kv_heads=3, n_layers=4, vocab_size=53)


def test_new_parts_are_born_at_the_growth() -> None:
    births = grow_births(plan_growth(FIRST, SECOND, table(operator="masked")), {}, 100)
    assert births == {
        "vocab": [[50, 53, 100]],
        "d_model": [[16, 20, 100]],
        "q": [[16, 24, 100]],
        "kv": [[8, 12, 100]],
        "ffn": [[24, 30, 100]],
        "layers": [[1, 2, 100], [3, 4, 100]],
    }


def test_births_go_through_a_second_growth() -> None:
    births = grow_births(plan_growth(FIRST, SECOND, table(operator="masked")), {}, 100)
    third = SECOND.with_(d_model=40, d_ff=33, n_layers=5, vocab_size=60)
    births = grow_births(plan_growth(SECOND, third, table(operator="clone", depth="stack")), births, 250)
    assert births["d_model"] == [[16, 20, 100], [36, 40, 100]]  # copies are as old as their source
    assert births["ffn"] == [[24, 30, 100]]
    assert births["q"] == [[16, 24, 100]]
    assert births["vocab"] == [[50, 53, 100], [53, 60, 250]]
    assert births["layers"] == [[1, 2, 100], [3, 4, 100]]  # block 4 copies block 0 and its moments


def test_no_growth_no_births() -> None:
    assert not any(grow_births(plan_growth(FIRST, FIRST, table(operator="masked")), {}, 9).values())


def test_reset_moments_reset_every_clock() -> None:
    births = grow_births(plan_growth(FIRST, SECOND, table(operator="masked", moments="reset")), {}, 100)
    assert births["d_model"] == [[0, 20, 100]]


def test_expand_is_the_inverse_of_runs() -> None:
    assert expand_births([[1, 3, 7], [4, 5, 9]], 6).tolist() == [0, 7, 7, 0, 9, 0]
    assert expand_births(None, 3).tolist() == [0, 0, 0]
