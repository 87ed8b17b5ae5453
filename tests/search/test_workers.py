"""Trials that break: the search ends with their error, the others are saved, and none stays taken."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from growlm.data.prepare import prepare
from growlm.errors import GrowLMError, Preempted, RecipeError
from growlm.recipe.load import load_recipe
from growlm.recipe.schema import Recipe
from growlm.search.plan import Plan, make_plan
from growlm.search.proxy import make_proxy
from growlm.search.space import Value, parse_space, recipe_at
from growlm.search.study import Ending, Slot, Study, Taken
from growlm.search.trial import Trial
from growlm.search.workers import Workers
from growlm.testing.tiny import VOCABULARY, write_corpus, write_recipe
from growlm.train.signals import StopRequest
from tests.search.test_study import names, opened

torch.set_num_threads(1)
PROXY = make_proxy(load_recipe("laptop")).recipe


class Said:
    """What was told of the trials."""

    def __init__(self) -> None:
        self.endings: list[tuple[int, Ending, float | None, str]] = []

    def ended(self, taken: Taken, ending: Ending, loss: float | None, why: str) -> None:
        self.endings.append((taken.number, ending, loss, why))

    def tick(self, running: int) -> None:
        pass


@pytest.fixture
def plan() -> Plan:
    return make_plan(parse_space(PROXY, ["optim.lr=2^-10..2^-7"]), "grid", None, seed=1)


@pytest.fixture
def study(tmp_path: Path, plan: Plan) -> Study:
    study = opened(tmp_path, plan)
    study.queue(plan.slots())
    return study


def recipe_of(values: dict[str, Value], _seed: int) -> Recipe:
    return recipe_at(PROXY, values)


def is_free(folder: Path, plan: Plan, slots: list[Slot]) -> bool:
    """Whether another process could take every one of the slots now."""
    other = opened(folder, plan)
    return all(other.take(names(slots)) for _ in slots)


def wait_for_the_signal(folder: Path) -> None:
    with StopRequest() as stop:
        (folder / "started").touch()
        while not stop:
            time.sleep(0.01)
    (folder / "saved").touch()
    raise Preempted("stopped: received SIGTERM")


def test_a_fatal_trial_ends_the_search_with_its_error_and_saves_the_others(
    tmp_path: Path, plan: Plan, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Recipe, folder: Path) -> None:
        if folder.name == "0000":
            wait_for_the_signal(folder)
        while not (folder.parent / "0000" / "started").exists():
            time.sleep(0.01)
        raise RecipeError("there is no such GPU", fix="train on the CPU")

    monkeypatch.setattr("growlm.train.supervisor.run", run)
    workers = Workers(study, recipe_of, tmp_path / "trials", 2, [], Said())
    with pytest.raises(GrowLMError, match="trial 1 cannot be trained") as raised:
        workers.work(plan.slots(), StopRequest())
    assert raised.value.exit_code == RecipeError.exit_code
    assert raised.value.where == str(tmp_path / "trials" / "0001" / "output.txt")
    assert (tmp_path / "trials" / "0000" / "saved").exists()
    assert is_free(tmp_path, plan, plan.slots())


def test_what_breaks_two_trials_in_the_same_words_ends_the_search(
    tmp_path: Path, plan: Plan, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Recipe, folder: Path) -> None:
        raise ImportError(f"cannot import name 'run' (in {folder})")

    monkeypatch.setattr("growlm.train.supervisor.run", run)
    said = Said()
    with pytest.raises(GrowLMError, match="trial 1") as raised:
        Workers(study, recipe_of, tmp_path / "trials", 1, [], said).work(plan.slots(), StopRequest())
    assert "ImportError: cannot import name" in raised.value.why
    assert raised.value.where.endswith("0001/output.txt")
    assert [(number, ending) for number, ending, *_ in said.endings] == [(0, "failed")]
    assert not (tmp_path / "trials" / "0002").exists(), "no third trial"


def test_a_trial_that_breaks_alone_has_failed(
    tmp_path: Path, plan: Plan, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Recipe, folder: Path) -> None:
        raise OSError(f"disk block {folder.name} is bad")

    monkeypatch.setattr("growlm.train.supervisor.run", run)
    said = Said()
    Workers(study, recipe_of, tmp_path / "trials", 2, [], said).work(plan.slots(), StopRequest())
    assert {ending for _, ending, *_ in said.endings} == {"failed"}
    assert len(said.endings) == 4


def test_a_trial_whose_recipe_is_none_does_not_stay_taken(tmp_path: Path, plan: Plan, study: Study) -> None:
    def refuse(_values: dict[str, Value], _seed: int) -> Recipe:
        raise RecipeError("these values do not go together")

    workers = Workers(study, refuse, tmp_path / "trials", 1, [], Said())
    with pytest.raises(RecipeError, match="do not go together"):
        workers.work(plan.slots(), StopRequest())
    assert is_free(tmp_path, plan, plan.slots())


def test_a_trial_hears_a_signal_from_its_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("growlm.train.supervisor.run", lambda *_: time.sleep(60))
    with StopRequest() as stop:
        for n in range(20):
            trial = Trial(PROXY, tmp_path / str(n))
            trial.stop()
            while trial.poll() is None:
                time.sleep(0.001)
            assert trial.poll() == -signal.SIGTERM
            trial.stop()
        assert not stop, "it was the child's"


_BLIND = """
import sys, time
from pathlib import Path
from growlm.recipe.load import load_recipe
from growlm.search.proxy import make_proxy
from growlm.search.trial import Trial, warm_up

class Changed:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "growlm":
            raise ImportError(f"{name} has changed on disk")

recipe = make_proxy(load_recipe(Path(sys.argv[1])), stage="small", tokens=1024).recipe
warm_up()
sys.meta_path.insert(0, Changed())
trial = Trial(recipe, Path(sys.argv[2]))
while (code := trial.poll()) is None:
    time.sleep(0.05)
print(trial.last_words())
sys.exit(code)
"""


def test_a_trial_imports_nothing_of_growlm_after_the_fork(tmp_path: Path) -> None:
    """A search of days outlives a change of the code, which its trials would otherwise see half of."""
    prepare(tmp_path / "data", write_corpus(tmp_path / "text"), vocab_size=VOCABULARY, validation_share=0.1)
    recipe = write_recipe(tmp_path / "tiny.toml", tmp_path / "data")
    command = [sys.executable, "-c", _BLIND, str(recipe), str(tmp_path / "trial")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
