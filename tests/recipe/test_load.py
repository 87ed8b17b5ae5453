"""Merging, overrides, provenance; and for every bad recipe the line and the hint."""

from collections.abc import Callable
from pathlib import Path

import pytest

from growlm.errors import RecipeError
from growlm.recipe.load import load_recipe, resolve_hash, resolve_recipe
from growlm.recipe.presets import presets
from tests.recipe.conftest import BASE

Write = Callable[..., Path]


def test_extends_equals_the_merged_recipe_written_by_hand(write: Write, tmp_path: Path) -> None:
    write()
    (tmp_path / "middle.toml").write_text('extends = "r.toml"\n[optim]\nbeta2 = 0.99\n')
    child = tmp_path / "child.toml"
    child.write_text(
        'extends = "middle.toml"\nname = "child"\n[optim]\nlr = 2e-3\n[data.mixture]\ncode = 1.0\n'
        + BASE[BASE.index("[[stages]]") : BASE.index('[[stages]]\nname = "b"')]
    )
    text = (
        BASE[: BASE.index('[[stages]]\nname = "b"')]
        .replace('"tiny"', '"child"')
        .replace("en = 1.0\nzh = 1.0", "code = 1.0")
        .replace("lr = 1e-3", "lr = 2e-3\nbeta2 = 0.99")
    )
    assert load_recipe(child) == load_recipe(write(text, "hand.toml"))


def test_a_preset_can_be_extended_by_name(write: Write) -> None:
    child = write('extends = "laptop"\nname = "mine"\n', "child.toml")
    assert load_recipe(child) == load_recipe(presets()["laptop"], ["name=mine"])
    assert load_recipe("laptop") == load_recipe(presets()["laptop"])


def test_overrides_equal_the_edited_file(write: Write) -> None:
    overrides = [
        "optim.lr=2e-3",
        "name=12",
        "stages.0.tokens=2_048",
        "stages.b.growth.operator=clone",
        "train.device=cpu",
        'eval.prompts=["a", "你"]',
        "data.mixture.en=3",
        "budget.price_per_hour=2",
    ]
    edited = (
        BASE.replace("lr = 1e-3", "lr = 2e-3")
        .replace('"tiny"', '"12"')
        .replace("tokens = 1024", "tokens = 2048", 1)
        .replace('"masked"', '"clone"')
        .replace("en = 1.0", "en = 3")
        + '[train]\ndevice = "cpu"\n[eval]\nprompts = ["a", "你"]\n[budget]\nprice_per_hour = 2\n'
    )
    straight = load_recipe(write(edited, "edited.toml"))
    assert load_recipe(write(), overrides) == straight
    assert resolve_hash(load_recipe(write(), overrides)) == resolve_hash(straight)
    assert resolve_hash(load_recipe(write())) != resolve_hash(straight)


def test_provenance_names_file_and_line_override_or_default(write: Write, tmp_path: Path) -> None:
    base = write()
    child = write('extends = "r.toml"\n\n[optim]\nlr = 2e-3\n', "child.toml")
    origin = resolve_recipe(child, ["stages.b.d_ff=96"]).provenance
    assert origin["optim.lr"] == f"{child}:4"
    assert origin["optim.beta1"] == "default"
    assert origin["model.head_dim"] == f"{base}:4"
    assert origin["stages.a.d_ff"] == f"{tmp_path / 'r.toml'}:20"
    assert origin["stages.b.d_ff"] == "--set stages.b.d_ff=96"


# One line of BASE (or one --set) changed; where the error must point, what it must say, what it must advise.
BAD = [
    (4, "head_dim = 8\nhead_dims = 8", 5, "unknown key `head_dims` in [model]", "did you mean `head_dim`?"),
    (12, "lrr = 1e-3", 12, "unknown key `lrr` in [optim]", "did you mean `lr`?"),
    (12, "lr = 1e-3\nzzzz = 1", 13, "unknown key `zzzz` in [optim]", "the keys of [optim] are: name, lr"),
    (12, "beta1 = 0.9", 11, "optim.lr is missing", "write `lr = ...`, a number above 0: Peak learning rate."),
    (12, "lr = -1", 12, "optim.lr is -1, not a number above 0", "write a number above 0"),
    (12, 'lr = "1e-3"', 12, 'optim.lr is "1e-3", not a number', "write `lr = 1e-3`, without quotes"),
    (12, "lr = nan", 12, "optim.lr is NaN", "write a number above 0"),
    (12, "lr = true", 12, "optim.lr is true", "write a number above 0"),
    (1, "name = 7", 1, "name is 7, not text", 'write `name = "7"`, in quotes'),
    (1, 'name = "a/b"', 1, 'name is "a/b"', "letters, digits"),
    (1, "", 1, "name is missing", "write `name = ...`"),
    (22, "tokens = 1e3", 22, "stages.a.tokens is 1000.0", "write `tokens = 1000`, without a point"),
    (31, "n_layer = 2", 31, "unknown key `n_layer` in [stages.b]", "did you mean `n_layers`?"),
    (31, "", 25, "stages.b.n_layers is missing", "write `n_layers = ...`"),
    (
        37,
        'operator = "mask"',
        37,
        'stages.b.growth.operator is "mask"',
        'did you mean `operator = "masked"`?',
    ),
    (9, 'en = "much"', 9, 'data.mixture.en is "much"', "write a table, each value a number"),
    (8, "[data.mixtures]", 8, "unknown key `mixtures` in [data]", "did you mean `mixture`?"),
    (13, "[schedules]", 13, "unknown key `schedules` in the recipe", "did you mean `schedule`?"),
    (1, 'name = "x"\neval = 3', 2, "eval is 3, not a table", "write a table: [eval]"),
    (3, "family = llama", 3, "not valid TOML", 'write family = "llama", with quotes'),
    (3, 'family = "llama', 3, "not valid TOML", "toml.io"),
    (3, 'family = "lama"', 3, 'no model family is named "lama"', 'did you mean "llama"?'),
    (4, "head_dim = 7", 4, "head_dim 7 has 7 coordinates to turn", "write an even number"),
    (4, "head_dim = 8\nrotary_share = 0.2", 4, "8 has 1.6 coordinates", "one of which 0.2 is an even number"),
    (24, "batch_size = 4\nhead_dim = 9", 25, "head_dim 9 has 9 coordinates to turn", "write an even number"),
    (3, 'family = "gpt2"', 2, "learns its positions and max_positions is unset", "max_positions = 16"),
    (28, "n_heads = 2", 28, 'stage 1 "b": 1 query heads for each', "write n_heads = 4"),
    (29, "n_kv_heads = 3", 29, "4 query heads for 3 key/value heads", "one of 1, 2, 4"),
    (26, 'name = "a"', 26, 'stages 0 and 1 are both named "a"', "a name of its own"),
    (30, "d_ff = 16", 30, 'stage 1 "b": d_ff 16 is smaller than the 32 it grows from', "write 32 or more"),
    (31, "n_layers = 1\nvocab_size = 32", 32, "vocab_size 32 is smaller than the 64", "write 64 or more"),
    (24, "batch_size = 4\n[stages.growth]", 25, "is the first and has a growth table", "remove it"),
    (38, "ramp_steps = 17", 38, "16 steps, too few for ramp_steps = 17", "growth.ramp_steps = 16 or less"),
    (38, "rewarm_steps = 17\nramp_steps = 1", 38, "too few for rewarm_steps = 17", "tokens = 1088 or more"),
    (14, "warmup_steps = 99", 14, "the warm-up of 99 steps is longer than the run of 32", "write 1"),
    (35, "micro_batch_size = 3", 35, "batch_size 4, not a multiple of 3", "write micro_batch_size = 2"),
    (33, "seq_len = 24", 33, "seq_len 24, not a multiple of 16", "another multiple of 16"),
    (9, "en = 0.0", 9, 'source "en" has weight 0.0', "leave the source out"),
    (13, "[budget]\nmax_cost = 5\n[schedule]", 14, "max_cost is set without a price", "price_per_hour"),
    (35, "mixture = {}", 35, "the mixture is empty", "at least one source"),
]


@pytest.mark.parametrize(("line", "text", "at", "what", "fix"), BAD, ids=[f"{b[0]}-{b[1]}" for b in BAD])
def test_a_bad_line_is_refused_with_its_place_and_what_to_write(
    write: Write, line: int, text: str, at: int, what: str, fix: str
) -> None:
    path = write(**{f"line{line}": text})
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.where == f"{path}:{at}"
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("old", "new", "at", "what", "fix"),
    [
        (
            '"masked"\nramp',
            '"clone"\nramp',
            27,
            "clone cannot take d_model from 16 to 40",
            "write d_model = 48",
        ),
        ('"masked"\nramp', '"zero"\nramp', 37, "under LayerNorm", '"masked" or "lemon" (any size)'),
    ],
)
def test_growth_that_its_operator_cannot_do(
    write: Write, old: str, new: str, at: int, what: str, fix: str
) -> None:
    text = BASE.replace("d_model = 32", "d_model = 40").replace('"llama"', '"flm"').replace(old, new)
    path = write(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert (caught.value.where, what in caught.value.what) == (f"{path}:{at}", True)
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("optim.lrr=1", "unknown key `lrr` in [optim]", "did you mean `lr`?"),
        ("optm.lr=1", "unknown key `optm` in the recipe", "did you mean `optim`?"),
        ("optim.lr=fast", "cannot read `fast`", "3e-4"),
        ("optim.lr=1\noptim.eps=2", "cannot read", "as in TOML"),
        ("optim.lr", "a dotted key and a value", "--set optim.lr=3e-4"),
        ("stages.bb.d_ff=64", "`stages` has no `bb`", "did you mean `stages.b`?"),
        ("stages.7.d_ff=64", "`stages` has no `7`", "0 (a), 1 (b)"),
        ("model.family.x=1", "`model.family` is not a table", "--set model.family="),
        ("stages.b.d_ff=16", "smaller than the 32", "write 32 or more"),
        ("schedule.kind=wds", 'schedule.kind is "wds"', 'kind = "wsd"'),
    ],
)
def test_a_bad_override_is_refused_as_such(write: Write, override: str, what: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(), [override])
    assert caught.value.where == f"--set {override}"
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_no_context_is_longer_than_the_learned_positions(write: Write) -> None:
    path = write(line3='family = "opt"\nmax_positions = 16\nhead_dim = 7', line4="", line33="seq_len = 32")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.where == f"{path}:35"
    assert 'stage 1 "b" has seq_len 32, more than the 16 positions' in caught.value.what
    assert "write model.max_positions = 32, or seq_len = 16 or less" in caught.value.fix
    assert load_recipe(path, ["model.max_positions=32"]).model_config_of(1).max_positions == 32


def test_every_problem_is_listed_with_its_own_line(write: Write) -> None:
    path = write(line4="head_dim = -8", line12="lrr = 1", line30='d_ff = "64"')
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    text = str(caught.value)
    assert text.startswith("3 problems in the recipe")
    assert [f"{path}:{line}" in text for line in (4, 12, 30)] == [True] * 3


def test_a_problem_in_a_base_is_placed_in_the_base(write: Write) -> None:
    base = write(line12="lr = -1")
    with pytest.raises(RecipeError) as caught:
        load_recipe(write('extends = "r.toml"\n[optim]\nbeta1 = 0.8\n', "child.toml"))
    assert caught.value.where == f"{base}:12"


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        (b"# nothing\n", "", "the recipe is empty"),
        (b"\x00\x01\x02", ":1", "not valid TOML"),
        ("name = '你'\nx = '\xe9'".encode("latin-1", "replace"), ":2", "not UTF-8"),
        (b"#" * (1 << 20) + b"#", "", "larger than 1 MiB"),
        (b"a = " + b"[" * 50_000, "", "nested too deeply"),
        (b"a = " + b"9" * 5_000, ":1", "not valid TOML"),
        (b"name = 'x'\nname = 'y'", ":2", "not valid TOML"),
        (b"extends = 'r.toml'", ":1", "`extends` goes in a circle: r.toml -> r.toml"),
        (b"\nextends = 'nope'", ":2", "neither a file nor a preset"),
        (b"extends = 3", ":1", "`extends` is not text"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, where: str, what: str) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=what) as caught:
        load_recipe(path)
    assert f"{path}{where}" in (caught.value.where or str(caught.value))


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="No such file") as caught:
        load_recipe(tmp_path / "absent.toml")
    assert "growlm init" in caught.value.fix


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400], ids=["most", "least", "no float"])
def test_whole_numbers_that_toml_does_not_have(write: Write, number: int) -> None:
    base = write(BASE)
    for key in ("stages.0.d_model", "train.seed", "model.mup_base_hidden"):
        value = [number] if key.endswith("hidden") else number
        with pytest.raises(RecipeError, match="too large") as caught:
            load_recipe(base, [f"{key}={value}"])
        assert key in str(caught.value.where)
