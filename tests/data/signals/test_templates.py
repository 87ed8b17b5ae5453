"""Templates are data: plain fields only, and what gives its label away is refused."""

from __future__ import annotations

import string
from pathlib import Path

import pytest

from growlm.data.signals.patterns import Pattern
from growlm.data.signals.templates import SHIPPED, Library
from growlm.errors import RecipeError


def library(folder: Path, text: str) -> Library:
    path = folder / "mine.toml"
    path.write_text(f'language = "en"\n{text}', "utf-8")
    return Library(path)


@pytest.mark.parametrize("source", ["{a} and {b}!", "{{{a}}}", "no field", "", "{a}{a}"])
def test_a_pattern_fills_as_str_format_does(source: str):
    values = {"a": "{b}", "b": "{0.__class__}"}
    assert Pattern.parse(source).fill(values) == source.format(**values)


@pytest.mark.parametrize(
    "source",
    ["{a.b}", "{a[0]}", "{}", "{0}", "{a!r}", "{a:>9}", "{a", "a}", "{a b}", "{% if a %}{a.__init__}"],
)
def test_a_pattern_reaches_nothing_but_named_fields(source: str):
    with pytest.raises(ValueError, match=r".+"):
        Pattern.parse(source)


def test_every_shipped_task_and_family_is_sound():
    shipped = Library()
    tasks = ["boolq", "cb", "copa", "multirc", "rte", "wic", "wsc", "afqmc", "csl", "ocnli", "cluewsc"]
    for task in [*tasks, "mmlu", "arc", "cmmlu"]:
        assert shipped.template(task).name == task
    families = ["entailment", "yes_no", "choice", "paraphrase", "sentiment", "word_sense", "coreference"]
    for language in ("en", "zh"):
        for family in [*families, "keywords", "answer", "statement"]:
            template = shipped.template(family, language)
            assert template.language == language
    assert sorted(path.name for path in SHIPPED.iterdir()) == ["en.toml", "zh.toml"]


@pytest.mark.parametrize("family", ["entailment", "paraphrase", "sentiment", "word_sense", "coreference"])
def test_labels_of_a_family_have_as_many_wordings_in_the_same_fields(family: str):
    for language in ("en", "zh"):
        statements = Library().template(family, language).statements
        shapes = {tuple(sorted(p.fields for p in patterns)) for patterns in statements.values()}
        assert len(shapes) == 1
        assert len({len(patterns) for patterns in statements.values()}) == 1


def test_a_task_of_ones_own_takes_a_family_or_words_itself(tmp_path: Path):
    mine = library(
        tmp_path,
        """
        [tasks.reviews]
        family = "sentiment"
        fields = { text = "body.review" }
        label = "stars"
        labels = { 5 = "positive", 1 = "negative" }
        drop = ["3"]
        [tasks.spam]
        form = "labels"
        text = "{mail}"
        label = "class"
        statements = { spam = ["This is spam."], ham = ["This is no spam."] }
        [families.sentiment]
        form = "labels"
        text = "Review: {text}"
        statements = { positive = ["Good."], negative = ["Bad."] }
        """,
    )
    reviews = mine.template("reviews")
    assert reviews.text.source == "Review: {text}"
    assert reviews.paths == {"text": ("body.review",)}
    assert (reviews.label, reviews.drop) == ("stars", frozenset({"3"}))
    assert mine.template("spam").labels == {"spam": "spam", "ham": "ham"}


BAD = {
    "attribute": ('form = "truth"\ntext = "{a.__class__}"', "plain name"),
    "unknown key": ('jinja = "x"', "cannot have"),
    "no form": ("", "no form"),
    "unknown form": ('form = "table"', "cannot have"),
    "unknown family": ('family = "entailement"', "no family"),
    "no statements": ('form = "labels"', "no statements"),
    "no wordings": ('form = "truth"\nstatements = []', "no statements"),
    "label without statement": (
        'family = "sentiment"\nlabels = { 1 = "positive", 2 = "mixed" }',
        "'mixed', for which there is no statement",
    ),
    "label in the text": ('family = "sentiment"\ntext = "{text} {label}"', "leaks its label"),
    "label under a name": (
        'family = "sentiment"\nlabel = "gold"\nfields = { text = "gold" }',
        "leaks its label",
    ),
    "answer in the text": ('family = "choice"\ntext = "{question} {answer}"', "leaks its label"),
    "wordings of the truth": (
        'form = "truth"\nstatements = { true = ["Sure: {claim}"], false = ["Hardly: {claim}"] }',
        "leaks its label",
    ),
    "wordings of the right choice": (
        'family = "choice"\nstatements = { right = ["Yes, {choice}"], wrong = ["Maybe {choice}"] }',
        "leaks its label",
    ),
    "one wording of two labels": (
        'form = "labels"\nstatements = { yes = ["It is {claim}"], no = ["It is {claim}"] }',
        "occurs twice",
    ),
    "choice not named": ('family = "choice"\nstatements = ["It is right."]', "does not name it"),
    "no choices": ('form = "choices"\nstatements = ["It is {choice}"]', "no choices"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_template_is_refused_with_its_place(tmp_path: Path, case: str):
    text, words = BAD[case]
    with pytest.raises(RecipeError) as caught:
        library(tmp_path, f"[tasks.mine]\n{text}").template("mine")
    assert words in str(caught.value)
    assert "mine.toml: tasks.mine" in str(caught.value)


def test_a_bad_family_is_refused_with_its_place(tmp_path: Path):
    mine = library(tmp_path, '[families.mine]\nform = "truth"\nstatements = ["{a.b}"]')
    with pytest.raises(RecipeError, match=r"mine\.toml: families\.mine\.statements"):
        mine.template("mine")


def test_a_file_that_is_no_toml_and_an_unknown_task_are_refused(tmp_path: Path):
    (tmp_path / "mine.toml").write_text("tasks = [")
    for path in (tmp_path / "mine.toml", tmp_path / "missing.toml"):
        with pytest.raises(RecipeError, match="cannot be read"):
            Library(path)
    with pytest.raises(RecipeError, match="did you mean 'boolq'"):
        Library().template("bolq")
    with pytest.raises(RecipeError, match="families in fr: none"):
        Library().template("entailment", "fr")


def test_wordings_have_no_trailing_space_and_differ_in_more_than_case():
    for language in ("en", "zh"):
        shipped = Library()
        for family in ("entailment", "yes_no", "choice", "paraphrase", "sentiment", "keywords", "answer"):
            sources = [p.source for ps in shipped.template(family, language).statements.values() for p in ps]
            assert all(source == source.strip() for source in sources)
            plain = [source.lower().strip(string.punctuation) for source in sources]
            assert len(set(plain)) == len(plain)
