"""The items: solvable from their prompts alone, the same everywhere, and nothing given away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import xxhash

from growlm.errors import DataError, RecipeError
from growlm.evaluate.iq.symbolic import Symbolic
from growlm.evaluate.iq.task import Generated, Item, Language, Setup
from growlm.evaluate.iq.tasks import TASKS
from tests.evaluate.iq.labelled import write_rows, write_sets
from tests.evaluate.iq.solvers import solve

GENERATED = [task for task in TASKS.values() if isinstance(task, Generated)]
SYMBOLIC = [task for task in TASKS.values() if isinstance(task, Symbolic)]
LANGUAGES: list[Language] = ["en", "zh"]


def items(name: str, **setup: object) -> list[Item]:
    return TASKS[name].make(Setup(**setup))[0]  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", GENERATED, ids=lambda task: task.name)
def test_every_prompt_holds_all_that_its_answer_needs(task: Generated, language: Language) -> None:
    made, _ = task.make(Setup(3, language))
    assert len(made) == task.items
    for item in made:
        assert task.answer(" " + solve(item.prompt)) == item.target, item.prompt


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", GENERATED, ids=lambda task: task.name)
def test_nothing_is_given_away(task: Generated, language: Language) -> None:
    made, _ = task.make(Setup(4, language, 100))
    for item in made:
        assert item.prompt.endswith(item.query)
        assert item.query not in [query for query, _ in item.shots]
        assert len(item.shots) == task.dials["shots"].values[0]
        if task.name == "key_retrieval":
            assert item.prompt.count(item.target) == 1
        elif task.name not in ("single_fact", "two_facts", "head_slicing"):
            assert item.target not in item.prompt
    assert len({item.prompt for item in made}) == len(made)


def test_items_depend_on_the_seed_alone(sets: Path) -> None:
    code = "import sys; from tests.evaluate.iq.test_items import digest; print(digest(sys.argv[1]))"
    told = subprocess.run(
        [sys.executable, "-c", code, str(sets)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )
    assert told.stdout.strip() == digest(str(sets))


def digest(folder: str) -> str:
    """Of items of every task in both languages."""
    setups = [Setup(5, language, 20, {}, Path(folder)) for language in LANGUAGES]
    made = [repr(task.make(setup)[0]) for setup in setups for task in TASKS.values()]
    return xxhash.xxh3_128_hexdigest("".join(made).encode())


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_seed_is_a_suite_of_its_own_and_more_items_go_on_with_it(task: Generated, sets: Path) -> None:
    one, _ = task.make(Setup(1, items=40, data_dir=sets))
    more, _ = task.make(Setup(1, items=50, data_dir=sets))
    other, _ = task.make(Setup(2, items=40, data_dir=sets))
    assert more[:40] == one
    assert len({item.prompt for item in one} & {item.prompt for item in other}) <= 1


@pytest.mark.parametrize("task", SYMBOLIC, ids=lambda task: task.name)
def test_symbols_mean_the_same_in_shots_and_question(task: Symbolic, sets: Path) -> None:
    made, notes = task.make(Setup(0, items=40, data_dir=sets))
    assert any("60 rows" in note for note in notes)
    for item in made:
        assert solve(item.prompt) == item.target
        assert Counter(answer for _, answer in item.shots) == dict.fromkeys(
            item.choices, task.dials["shots"].values[0]
        )
        assert item.query not in [query for query, _ in item.shots]
        assert item.chance == 1 / len(item.choices)
    symbols = [symbol for item in made for symbol in item.choices]
    assert len(set(symbols)) == len(symbols)


def test_shots_are_of_the_train_split_where_there_is_one(sets: Path) -> None:
    for name, split in (("superglue_iq_wic", "wic-train"), ("clue_iq_afqmc", "afqmc-dev")):
        for item in items(name, items=5, data_dir=sets):
            assert all(split in query for query, _ in item.shots)


def test_dials_turn(sets: Path) -> None:
    assert all(len(item.target.split(", ")) == 9 for item in items("counting", items=5, dials={"length": 12}))
    one = items("key_retrieval", items=2, dials={"keys": 3, "filler": 7, "shots": 1})[1]
    assert (one.bucket, one.chance, len(one.shots)) == ("keys=3 filler=7", 1 / 3, 1)
    assert one.query.count("The grass is green.") == 7
    wsc = items("superglue_iq_wsc", items=2, dials={"shots": 2}, data_dir=sets)[0]
    assert len(wsc.shots) == 4


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", GENERATED, ids=lambda task: task.name)
def test_the_easiest_items_with_most_shots_can_be_made(task: Generated, language: Language) -> None:
    dials = {name: dial.low for name, dial in task.dials.items()} | {"shots": task.dials["shots"].high}
    for item in task.make(Setup(0, language, 3, dials))[0]:
        assert len({item.query, *(query for query, _ in item.shots)}) == dials["shots"] + 1


def test_the_numbers_of_cluewsc_are_the_hubs(tmp_path: Path) -> None:
    """There the first label is `true`."""
    assert prompts(tmp_path / "names", ("true", "false")) == prompts(tmp_path / "numbers", (0, 1))


def prompts(folder: Path, labels: tuple[object, object]) -> list[str]:
    folder.mkdir()
    write_rows(folder / "cluewsc-dev.jsonl", "cluewsc", labels, 12)
    made = items("clue_iq_cluewsc", data_dir=folder)
    return [re.sub(r"\[\w+\]", "", item.prompt) for item in made]


def test_pronouns_are_marked_where_they_stand(sets: Path) -> None:
    for name in ("superglue_iq_wsc", "clue_iq_cluewsc"):
        item = items(name, items=1, data_dir=sets)[0]
        assert MARKED.count("*") == item.query.count("*") == 2
        assert " *" in item.query


MARKED = "wsc-val *3* [True]"


def test_bad_input_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="head_slicing cannot have keep=9"):
        items("head_slicing", dials={"keep": 9})
    rte = TASKS["superglue_iq_rte"]
    with pytest.raises(DataError, match="rte-val or rte-validation"):
        rte.make(Setup(data_dir=tmp_path))
    write_rows(tmp_path / "rte-val.jsonl", "rte", ("entailment", "maybe"), 4)
    with pytest.raises(DataError, match=r"rte-val\.jsonl:2"):
        rte.make(Setup(data_dir=tmp_path))
    write_rows(tmp_path / "rte-val.jsonl", "rte", ("entailment", "not_entailment"), 6)
    with pytest.raises(DataError, match="too few rows for 4 shots"):
        rte.make(Setup(data_dir=tmp_path))
    made, notes = rte.make(Setup(data_dir=tmp_path, dials={"shots": 2}))
    assert len(made) == 6
    assert any("277 items were asked for" in note for note in notes)
