"""The suite put to models that need no weights: scores, files, and what happens when something goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from growlm.cli.eval_iq import TASKS_HELP
from growlm.cli.main import app
from growlm.errors import DataError, GrowLMError, LockError, RecipeError
from growlm.evaluate.folder import ITEMS
from growlm.evaluate.iq.suite import measure, plan, run
from growlm.evaluate.iq.task import Language, Setup
from growlm.evaluate.iq.tasks import GROUPS, TASKS
from growlm.evaluate.published import published
from growlm.evaluate.result import RESULTS, Score, load_result
from growlm.inference.journal import ANSWERS, Journal
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt
from tests.evaluate.iq.labelled import write_rows, write_sets
from tests.evaluate.iq.solvers import Solver, guesser, oracle, solve

FACTS: dict[str, Any] = {"name": "m", "source": "m"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def by_name(scores: Sequence[Score]) -> dict[tuple[str, str], Score]:
    return {(score.task, score.metric): score for score in scores}


def test_who_solves_all_has_all_and_an_interval(sets: Path) -> None:
    scores = measure(oracle(), items=24, data_dir=sets)
    assert {score.value for score in scores} == {1.0}
    assert {score.high for score in scores} == {1.0}
    assert all(score.low < 1 for score in scores)
    found = by_name(scores)
    assert len(found) == 17 + 8 + 5 + 2 + 12
    assert found["rules", "exact_match"].published == published("rules")
    assert found["superglue_iq_rte", "likelihood"].published == {}
    assert found["superglue_iq_rte", "likelihood"].chance == 0.5
    assert found["superglue_iq_rte", "exact_match"].chance is None
    assert found["counting", "exact_match"].chance is None


def test_who_guesses_stays_at_chance(sets: Path) -> None:
    languages: list[Language] = ["en", "zh"]
    for language in languages:
        scores = measure(guesser(), seed=7, items=60, language=language, data_dir=sets)
        for score in scores:
            expected = score.chance if score.chance is not None else 0.5 if "_iq" in score.task else 0
            if score.task == "clue_iq_ocnli" or score.group == "iq/rules":
                expected = score.chance or (1 / 3 if score.task == "clue_iq_ocnli" else 0)
            if score.task not in ("clue_iq", "rules", "patterns"):
                assert abs(score.value - expected) <= 4 * sqrt(expected * (1 - expected) / score.items), score
            assert 0 <= score.low <= score.value <= score.high <= 1
            assert score.low < score.high


def test_an_average_is_of_its_tasks_and_buckets_make_up_their_task() -> None:
    half = Solver(lambda prompt: solve(prompt) if len(prompt) % 2 else "", "half")
    found = measure(half, ["interference"], items=48)
    tasks = by_name(found)
    mine = [tasks[name, "exact_match"].value for name in ("key_retrieval", "single_fact", "two_facts")]
    assert tasks["interference", "exact_match"].value == pytest.approx(sum(mine) / 3)
    buckets = [score for score in found if score.group == "iq/keys"]
    assert sum(score.value * score.items for score in buckets) == pytest.approx(48 * mine[0])
    assert {score.items for score in buckets} == {4}
    assert tasks["key_retrieval", "exact_match"].chance == pytest.approx((1 / 2 + 1 / 4 + 1 / 8 + 1 / 16) / 4)


class Flawed(Solver):
    """Fails one item, cuts one, and dies after so many answers."""

    def __init__(self, dies_after: int = 10**9) -> None:
        super().__init__(solve, "flawed")
        self.left = dies_after

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        for index, answer in super().completions(requests):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            assert isinstance(answer, Completion)
            if index == 0:
                yield index, Failed("no answer")
            else:
                yield index, Completion(answer.text, 1, "stop", cut=3 if index == 1 else 0)


def test_failed_and_cut_items_are_counted(tmp_path: Path) -> None:
    setup = Setup(items=10)
    result = run(Flawed(), FACTS, plan(["counting"], setup), setup, tmp_path, quiet=True)
    (score,) = result.scores
    assert (score.value, score.failed, score.cut, score.items) == (0.9, 1, 1, 10)
    lines = [json.loads(line) for line in (tmp_path / ITEMS).read_text("utf-8").splitlines()]
    assert [line["index"] for line in lines] == list(range(10))
    assert (lines[0]["failed"], lines[0]["right"], lines[1]["cut"]) == ("no answer", False, 3)
    assert load_result(tmp_path / RESULTS) == result


class Half(Solver):
    """Solves all, but fails the requests of one kind that `fails` says."""

    def __init__(self, kind: type[Prompt] | type[Choice], fails: Callable[[int], bool]) -> None:
        super().__init__(solve, "half")
        self.kind, self.fails = kind, fails

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        for index, answer in super().completions(requests):
            fails = self.kind is Prompt and self.fails(index)
            yield index, Failed("not supported") if fails else answer

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        for index, answer in super().likelihoods(requests):
            fails = self.kind is Choice and self.fails(index)
            yield index, Failed("not supported") if fails else answer


def test_written_answers_and_likelihoods_fail_apart(sets: Path) -> None:
    tasks = ["superglue_iq"]
    (*_, written) = measure(Half(Choice, lambda _: True), tasks, items=4, data_dir=sets)
    assert {written.metric, *(written.notes[-1:])} == {
        "exact_match",
        "there are no likelihoods of the choices: not supported",
    }
    assert (written.value, written.failed) == (1.0, 0)
    found = by_name(measure(Half(Choice, lambda index: index == 5), tasks, items=4, data_dir=sets))
    boolq, group = (found[name, "likelihood"] for name in ("superglue_iq_boolq", "superglue_iq"))
    assert (boolq.value, boolq.failed, group.failed) == (0.75, 1, 1)
    assert found["superglue_iq_boolq", "exact_match"].failed == 0
    found = by_name(measure(Half(Prompt, lambda _: True), tasks, items=4, data_dir=sets))
    written, likelihood = (found["superglue_iq", metric] for metric in ("exact_match", "likelihood"))
    assert (written.value, written.failed) == (0, 16)
    assert (likelihood.value, likelihood.failed) == (1, 0)


def test_any_whole_number_is_a_seed() -> None:
    sometimes = Solver(lambda prompt: solve(prompt) if len(prompt) % 2 else "", "sometimes")
    (score,) = measure(sometimes, ["replace_word"], items=12, seed=-1)
    assert 0 < score.low < score.value < score.high < 1


def test_an_interrupted_suite_goes_on(tmp_path: Path) -> None:
    setup = Setup(items=10)
    planned = plan(["patterns"], setup)
    with pytest.raises(KeyboardInterrupt):
        run(Flawed(dies_after=12), FACTS, planned, setup, tmp_path, quiet=True)
    again = Flawed()
    run(again, FACTS, planned, setup, tmp_path, quiet=True)
    assert len(again.asked) == 30 - 12
    last = Flawed()
    run(last, FACTS, planned, setup, tmp_path, quiet=True)
    assert len(last.asked) == 1  # the one that failed is asked again


def test_other_tasks_of_the_same_model_stay(tmp_path: Path) -> None:
    def names(tasks: list[str], setup: Setup, model: Solver) -> list[str]:
        result = run(model, FACTS, plan(tasks, setup), setup, tmp_path, quiet=True)
        asked = {json.loads(line)["task"] for line in (tmp_path / ITEMS).read_text("utf-8").splitlines()}
        assert asked == set(result.settings["tasks"])
        return [score.task for score in result.scores]

    few = Setup(items=2, dials={"keys": 2, "filler": 1})
    assert names(["rules"], Setup(items=2), oracle())[0] == "rules"
    assert names(["head_tail"], Setup(items=2), oracle())[-1] == "head_tail"
    assert names(["counting"], Setup(items=2), oracle())[:2] == ["counting", "replace_lowercase"]
    assert "counting_zh" in names(["rules"], Setup(items=2, language="zh"), oracle())
    assert names(["key_retrieval"], few, guesser()) == ["key_retrieval"]


def test_other_settings_replace_results_and_that_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    for setup in (Setup(items=3), Setup(items=3), Setup(seed=1, items=2)):
        run(oracle(), FACTS, plan(["rules"], setup), setup, tmp_path, quiet=True, say=said.append)
    assert said[0].startswith("9 answers were known")
    assert said[1].startswith(
        "these take the place of the results of counting, replace_lowercase, replace_word with"
    )
    setup = Setup(items=1)
    run(oracle(), FACTS, plan(["counting"], setup), setup, tmp_path, quiet=True, say=said.append)
    assert said[-1].startswith("no longer an average of rules")
    said.clear()
    with (tmp_path / ITEMS).open("a") as file:
        file.write('{"task"\n')  # a line that is none is left out
    setup = Setup(items=2)
    run(guesser(), FACTS, plan(["head_tail"], setup), setup, tmp_path, quiet=True, say=said.append)
    assert said[0].startswith("these take the place of the results of the model as it was before")
    assert {score.task for score in load_result(tmp_path / RESULTS).scores} == {"head_tail"}


def test_two_evaluations_of_one_folder(tmp_path: Path) -> None:
    setup = Setup(items=3)
    first = Journal(tmp_path / ANSWERS, oracle())
    with pytest.raises(LockError, match="Another evaluation"):
        run(oracle(), FACTS, plan(["counting"], setup), setup, tmp_path, quiet=True)
    first.close()
    assert run(oracle(), FACTS, plan(["counting"], setup), setup, tmp_path, quiet=True).scores[0].value == 1


def test_what_is_missing_or_unknown_is_said(sets: Path, tmp_path: Path) -> None:
    said: list[str] = []
    planned = plan([], Setup(items=1), said.append)
    assert len(planned) == 9
    assert said == [
        "without their files in --data-dir are left out: superglue_iq, clue_iq (docs/evaluation.md)"
    ]
    said.clear()
    write_rows(tmp_path / "afqmc-dev.jsonl", "afqmc", ("0", "1"), 12)
    plan([], Setup(items=1, data_dir=tmp_path), said.append)
    assert "superglue_iq, clue_iq_csl, clue_iq_ocnli, clue_iq_cluewsc (docs" in said[0]
    said.clear()
    with pytest.raises(RecipeError, match=r"where: +--shots 99"):
        plan([], Setup(dials={"shots": 99}), said.append)
    assert not said
    with pytest.raises(DataError, match="--task superglue_iq_boolq without --data-dir"):
        plan(["superglue_iq"], Setup())
    with pytest.raises(RecipeError, match="did you mean --task superglue_iq_rte"):
        plan(["rte"], Setup())
    assert len(plan([], Setup(items=1, language="zh", data_dir=sets))) == 9 + 4
    with pytest.raises(DataError, match="clue_iq_csl is made from files that are not there"):
        plan(["clue_iq_csl"], Setup(data_dir=tmp_path))
    with pytest.raises(RecipeError, match="did you mean --task replace_word"):
        plan(["replace_words"], Setup())
    with pytest.raises(RecipeError, match="did you mean --dial length=3"):
        plan(["rules"], Setup(dials={"lenght": 3}))
    for items in (0, 10**9):
        with pytest.raises(GrowLMError, match="no number of items"):
            plan(["rules"], Setup(items=items))


def test_the_command_line_says_what_is_wrong() -> None:
    for flags, what in (
        (["--task", "countin", "http://x"], "no task 'countin'"),
        (["--dial", "length", "http://x"], "no NAME=NUMBER"),
        (["--items", "1"], "No model is named"),
        (["nosuch"], "There is no such file or folder"),
        (["--shots", "3", "--dial", "shots=2", "http://x"], "shots is set twice"),
        (["--export", "x", "http://x"], "--export asks no model"),
        (["n\udcff=http://x"], "no name for a folder"),
    ):
        done = CliRunner().invoke(app, ["eval", "iq", *flags])
        assert what in str(done.exception)
        assert done.stderr == ""
    done = CliRunner().invoke(app, ["eval", "iq", "x", "--shots", "-2"])
    assert (done.exit_code, "--shots" in done.stderr) == (2, True)


def test_help_names_every_group_and_task() -> None:
    for name in (*GROUPS, *TASKS):
        assert name in TASKS_HELP or f", _{name.rpartition('_')[2]}" in TASKS_HELP, name
