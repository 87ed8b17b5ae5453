"""The table of machines is read, laid over, and refused with the place of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from growlm.errors import RecipeError
from growlm.plan.machines import load_machines, parse_gpus

MINE = """
prices_as_of = 2026-12-01
grid = "home"
[grids]
home = 12
[gpus.h100]
price_per_hour = 2.5
[gpus.mine]
name = "Mine"
peak_tflops = 100
efficiency = 0.5
memory_gib = 16
memory_gb_per_second = 500
watts = 100
intra_gb_per_second = 10
inter_gb_per_second = 1
per_node = 2
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "machines.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_peaks_are_dense() -> None:
    """Data sheets; twice as much is with 2:4 sparsity."""
    machines = load_machines()
    dense = {"a100": 312, "a800": 312, "h100": 989, "h800": 989, "h200": 989, "b200": 2250}
    assert {key: machines.gpu(key).peak_flops / 1e12 for key in dense} == dense


def test_the_users_table_replaces_key_by_key(tmp_path: Path) -> None:
    ours, both = load_machines(), load_machines(written(tmp_path, MINE))
    assert both.prices_as_of == "2026-12-01"
    assert both.gpu("H100").price_per_hour == 2.5
    assert both.gpu("h100").watts == ours.gpu("h100").watts
    assert both.gpu("mine").memory_bytes == 16 * 2**30
    assert both.gpu("mine").price_per_hour is None
    assert (both.intensity(), both.intensity("chn")) == (12, 582)


def test_a_number_and_a_kind() -> None:
    machines = load_machines()
    assert parse_gpus("4xh100", machines) == (4, machines.gpu("h100"))
    assert parse_gpus("192 x A800", machines) == (192, machines.gpu("a800"))
    assert parse_gpus("rtx4090", machines) == (None, machines.gpu("rtx4090"))


@pytest.mark.parametrize("text", ["0xh100", "4x", "", "-1xh100", "4.5xh100", "00xh100"])
def test_what_is_no_number_of_gpus_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="is not a number of GPUs"):
        parse_gpus(text, load_machines())


def test_unknown_names_come_with_those_that_are_known() -> None:
    machines = load_machines()
    with pytest.raises(RecipeError, match=r"h1000(?s:.)*a100, (?s:.)*--machines FILE"):
        parse_gpus("4xh1000", machines)
    with pytest.raises(RecipeError, match=r"Mars(?s:.)*CHN"):
        machines.intensity("Mars")


BAD = [
    ("gpus = 3", "gpus"),
    ("[gpus.h100]\nwatts = -1", "gpus.h100.watts"),
    ("[gpus.h100]\nmemory_gib = 0", "gpus.h100.memory_gib"),
    ("[gpus.h100]\nefficiency = 1.5", "gpus.h100.efficiency"),
    ("[gpus.h100]\nprice_per_hour = nan", "gpus.h100.price_per_hour"),
    ("[gpus.h100]\nspeed = 1", "gpus.h100.speed"),
    ("[gpus.mine]\nname = 'x'", "gpus.mine.peak_tflops"),
    ("[grids]\nworld = 'much'", "grids.world"),
    ("[grids]\nworld = -5", "grids.world"),
    ("pue = 0.5", "pue"),
    ("grid = 'nowhere'", "nowhere"),
    ("= = =", "machines.toml"),
]


@pytest.mark.parametrize(("text", "place"), BAD)
def test_a_broken_table_is_one_error_that_says_where(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_machines(written(tmp_path, text))
    assert place in str(caught.value)


def test_a_table_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_machines(tmp_path / "none.toml")
