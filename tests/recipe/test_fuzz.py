"""Whatever is written in a recipe or after --set, it loads or is refused with a place: nothing else."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from growlm.errors import RecipeError
from growlm.recipe.describe import toml_value
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from tests.recipe.conftest import BASE

VALUES = st.one_of(
    st.sampled_from([-1, 0, 1, 3, 2**70, 10**400, 0.0, -1.5, 1e300, 5e-324, True, "", "x", "1e-3", [], {}]),
    st.lists(st.integers() | st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["en", "name", "d_ff", "a b"]), st.integers() | st.text(max_size=3)),
).map(toml_value)
LINES = st.integers(0, BASE.count("\n") - 1)


def refuse_or_load(path: Path, overrides: list[str] | None = None) -> None:
    """Any exception but a `RecipeError` that says where fails the test."""
    try:
        load_recipe(path, overrides or ())
    except RecipeError as error:
        refusal = str(error)
    else:
        return
    assert "where:" in refusal


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([(line, toml_value(10**400)) for line in (16, 17)])
@given(st.lists(st.tuples(LINES, VALUES | st.none() | st.text(max_size=6)), min_size=1, max_size=3))
def test_mangled_lines(tmp_path: Path, edits: list[tuple[int, str | None]]) -> None:
    rows = list[str](BASE.split("\n"))
    for number, value in edits:
        key, equals, _ = rows[number].partition("=")
        rows[number] = "" if value is None else f"{key}= {value}" if equals else value
    path = tmp_path / "r.toml"
    path.write_text("\n".join(rows), encoding="utf-8", errors="replace")
    refuse_or_load(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(BASE, encoding="utf-8")
    return path


def keys() -> list[str]:
    """Real keys, keys of one table in another, and shapes of keys that name nothing."""
    words = ["lr", "kind", "d_ff", "mixture", "name", "0", "a", "b"]
    pairs = [f"{table}.{word}" for table in Recipe.model_fields for word in words]
    deep = [
        f"stages.{stage}.{field}" for stage in ("a", "1") for field in ("d_ff", "growth.noise", "mixture.en")
    ]
    return [*Recipe.model_fields, *pairs, *deep, "", ".", "stages.9", "data.mixture.en", "stages.0.name"]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_override(base: Path, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(keys()) | st.text(max_size=8))
    refuse_or_load(base, [f"{key}={data.draw(VALUES | st.text(max_size=8))}"])
