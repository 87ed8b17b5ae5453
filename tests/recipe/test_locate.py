"""The scanner finds every key that tomllib finds, on the line a reader would point at."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from growlm.recipe.describe import toml_key, toml_value
from growlm.recipe.keys import leaves
from growlm.recipe.locate import key_lines, nearest
from growlm.recipe.presets import presets

TEXT = '''\
# [not.a.table]
a = "x = 1 # no"  # b = 2
"q.k" . 'l' = 1
m = """
fake = 1
[fake]
\\""" end"""
n = \'\'\'
it's = 2\'\'\'
[t.u]
w = { x = 1, y = { z = [1, 2] } }
v = [
  1, # one ]
  { k = "]" },
]
[[s]]
i = 1979-05-27 07:32:00
[s.sub]
j = 1
[[s]]
i = 2
[[s.deep]]
k = +1e3
'''


def test_every_key_of_an_awkward_text_is_on_its_line() -> None:
    lines = key_lines(TEXT)
    expected = {
        ("a",): 2,
        ("q.k", "l"): 3,
        ("m",): 4,
        ("n",): 8,
        ("t",): 10,
        ("t", "u"): 10,
        ("t", "u", "w"): 11,
        ("t", "u", "w", "y", "z"): 11,
        ("t", "u", "v", 0): 13,
        ("t", "u", "v", 1, "k"): 14,
        ("s", 0): 16,
        ("s", 0, "i"): 17,
        ("s", 0, "sub", "j"): 19,
        ("s", 1): 20,
        ("s", 1, "i"): 21,
        ("s", 1, "deep", 0, "k"): 23,
    }
    assert {key: lines.get(key) for key in expected} == expected
    assert ("fake",) not in lines
    assert ("b",) not in lines


def test_a_missing_key_is_placed_at_the_table_around_it() -> None:
    lines = key_lines(TEXT)
    assert nearest(lines, ("s", 1, "absent")) == 20
    assert nearest(lines, ("nowhere", "at", "all")) == 1


def test_every_leaf_of_every_preset_has_its_line() -> None:
    for path in presets().values():
        text = path.read_text(encoding="utf-8")
        lines = key_lines(text)
        for key in leaves(tomllib.loads(text)):
            assert str(key[-1]) in text.split("\n")[lines[key] - 1]


names = st.text(min_size=1, max_size=5)
values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(names, values, max_size=5))
def test_generated_toml_reads_back_and_every_top_key_is_located(data: dict[str, object]) -> None:
    text = "".join(f"{toml_key(name)} = {toml_value(value)}\n" for name, value in data.items())
    assert tomllib.loads(text) == data
    lines = key_lines(text)
    assert [lines[(name,)] for name in data] == list(range(1, len(data) + 1))
