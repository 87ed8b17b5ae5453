import importlib
import re
from pathlib import Path

from growlm.data.cleaning.near import collision_probability

PAGE = (Path(__file__).parents[3] / "docs" / "data-cleaning.md").read_text("utf-8")


def test_the_thresholds_on_the_page_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)\.([A-Z_]+)` \| (.*?) \|", PAGE, re.M)
    assert len(rows) > 20
    for module, name, value in rows:
        assert repr(getattr(importlib.import_module(f"growlm.data.cleaning.{module}"), name)) == value, name


def test_the_chances_on_the_page_are_those_of_the_formula() -> None:
    chances = re.search(r"s\^8\)\^14: (.*?)\. Of", PAGE, re.S)
    assert chances is not None
    for percent, similarity in re.findall(r"(\d+) % at ([\d.]+)", chances[1]):
        assert f"{100 * collision_probability(float(similarity)):.0f}" == percent
