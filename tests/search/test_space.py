"""The words of a search space: ranges of twos, lists, any field, and what is refused."""

import pytest

from growlm.errors import RecipeError
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from growlm.search.proxy import make_proxy
from growlm.search.space import parse_space, recipe_at, short


@pytest.fixture(scope="module")
def proxy() -> Recipe:
    return make_proxy(load_recipe("laptop")).recipe


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("optim.lr=2^-10..2^-6", (2**-10, 2**-9, 2**-8, 2**-7, 2**-6)),
        ("optim.lr=0.001..0.009", (0.001, 0.002, 0.004, 0.008)),
        ("model.init_std=0.04,0.01,0.02", (0.01, 0.02, 0.04)),
        ("optim.lr = 1e-3, 2^-9", (0.001, 2**-9)),
        ("schedule.warmup_steps=8..32", (8, 16, 32)),
        ("stages.deep.batch_size=8,16", (8, 16)),
        ("schedule.kind=wsd,cosine", ("wsd", "cosine")),
        ("model.tied=true,false", (True, False)),
        ("optim.weight_decay=0.1,0,0.1", (0.0, 0.1)),
        ("data.mixture.en=1,2", (1.0, 2.0)),
    ],
)
def test_values_are_typed_by_the_field_and_ascend(
    proxy: Recipe, text: str, values: tuple[object, ...]
) -> None:
    (axis,) = parse_space(proxy, [text]).axes
    assert axis.values == values
    assert [type(v) for v in axis.values] == [type(v) for v in values]
    assert axis.span == (".." in text)


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("optim.lr", "a dotted key and its values", "2^-10..2^-6"),
        ("optim.lr=", "a dotted key and its values", ""),
        ("optim.lrr=1,2", "unknown key `lrr`", "did you mean `lr`?"),
        ("optm.lr=1,2", "unknown key `optm`", "did you mean `optim`?"),
        ("optim.lr=fast,slow", "cannot read `fast`", ""),
        ("optim.lr=0.01..0.001", "from a positive number to a larger one", ""),
        ("optim.lr=a..b", "from a positive number to a larger one", ""),
        ("optim.lr=-1,1", "not a number above 0", ""),
        ("optim=1", "not a table", ""),
        ("schedule.kind=wds,cosine", "not one of", 'did you mean `kind = "wsd"`?'),
        ("stages.dep.batch_size=8", "`stages` has no `dep`", "did you mean `stages.deep`?"),
        ("stages.deep.d_model=64,128", "not searched", "--width"),
        ("model.mup_base_d_model=64,128", "not searched", ""),
        ("seed=1,2", "not searched", ""),
        ("eval.tokens=1,2", "not searched", ""),
        ("schedule.warmup_steps=8,100_000", "warm-up", ""),
    ],
)
def test_bad_words_are_refused_with_the_text_and_a_way_out(
    proxy: Recipe, text: str, what: str, fix: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        parse_space(proxy, [text])
    error = refused.value
    assert what in error.what
    assert fix in error.fix
    assert error.where == f"--search {text}"


def test_a_field_twice_and_a_grid_without_end_are_refused(proxy: Recipe) -> None:
    with pytest.raises(RecipeError, match="searched twice"):
        parse_space(proxy, ["optim.lr=1,2", "optim.lr=3,4"])
    fields = ("lr", "beta1", "beta2", "eps")
    with pytest.raises(RecipeError, match="10000"):
        parse_space(proxy, [f"optim.{f}=2^-30..2^-16" for f in fields])


def test_the_default_is_what_flm_searched_around_the_recipes_own_values(proxy: Recipe) -> None:
    space = parse_space(proxy, [])
    assert [axis.name for axis in space.axes] == ["optim.lr", "model.init_std", "model.output_mult"]
    assert space.size == 5 * 3 * 3
    middle = {axis.name: axis.values[len(axis.values) // 2] for axis in space.axes}
    assert recipe_at(proxy, middle) == proxy


def test_a_point_of_the_grid_is_a_recipe_with_its_values(proxy: Recipe) -> None:
    space = parse_space(
        proxy, ["optim.lr=2^-8..2^-6", "schedule.kind=wsd,cosine", "stages.deep.batch_size=8,16"]
    )
    assert len(set(space.grid())) == space.size == 12
    for point in space.grid():
        recipe = recipe_at(proxy, space.named(point))
        assert (recipe.optim.lr, recipe.schedule.kind, recipe.stages[0].batch_size) == point


@pytest.mark.parametrize(
    ("value", "text"), [(2**-9, "2^-9"), (0.02, "0.02"), (0.25, "0.25"), (3, "3"), ("wsd", "wsd")]
)
def test_values_are_shown_short(value: float | str, text: str) -> None:
    assert short(value) == text
