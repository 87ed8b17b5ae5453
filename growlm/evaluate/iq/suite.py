"""The IQ suite: which tasks, their items, a model's scores, and the files they are kept in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from growlm.errors import DataError, RecipeError
from growlm.evaluate.folder import ModelFolder, Say
from growlm.evaluate.iq.asking import Planned, ask
from growlm.evaluate.iq.scoring import scores_of
from growlm.evaluate.iq.symbolic import Symbolic
from growlm.evaluate.iq.task import VERSION, Language, Setup, Task, check_dials
from growlm.evaluate.iq.tasks import GROUPS, TASKS
from growlm.evaluate.result import Result, Score
from growlm.inference.journal import ANSWERS, Journal
from growlm.inference.requests import Model
from growlm.recipe.keys import did_you_mean

MOST_ITEMS = 100_000


def plan(names: Sequence[str], setup: Setup, say: Say = lambda _: None) -> list[Planned]:
    """The tasks that are named, or all, with their items.

    A name is a task's or a group's (`rules`, `superglue_iq`). Without names, symbolic mapping that lacks its
    files is left out, and `say` is told which; in Chinese the English SuperGLUE-IQ is left out too.

    Raises RecipeError for an unknown name or dial, DataError for damaged data.
    """
    tasks = _chosen(names, setup)
    check_dials(tasks, setup.dials)
    if setup.items is not None and not 1 <= setup.items <= MOST_ITEMS:
        why = f"a task has from 1 to {MOST_ITEMS:,} items"
        raise RecipeError(
            "That is no number of items", where=f"--items {setup.items}", why=why, fix="--items 100"
        )
    left_out = [] if names else [task for task in tasks if not _there(task, setup)]
    planned = [_planned(task, setup) for task in tasks if task not in left_out]
    if not planned:
        raise DataError(
            "No task is left", where="--data-dir", fix="--data-dir FOLDER with their files, or --task rules"
        )
    if left_out:
        say(f"without their files in --data-dir are left out: {_named(left_out)} (docs/evaluation.md)")
    for each in planned:
        for note in each.notes:
            say(f"{each.label}: {note}")
    return planned


def measure(
    model: Model,
    names: Sequence[str] = (),
    *,
    items: int | None = None,
    seed: int = 0,
    dials: Mapping[str, int] | None = None,
    language: Language = "en",
    data_dir: Path | None = None,
    quiet: bool = True,
) -> list[Score]:
    """Scores of a model, without files: tasks or groups by name, `items` of each (None: as published).

    Raises RecipeError for an unknown name or dial, DataError for data that are missing or damaged.
    """
    setup = Setup(seed, language, items, dict(dials or {}), data_dir)
    planned = plan(names, setup)
    return scores_of(planned, ask(model, planned, quiet=quiet), setup)


def run(
    model: Model,
    facts: Mapping[str, Any],
    planned: Sequence[Planned],
    setup: Setup,
    folder: Path,
    *,
    quiet: bool = False,
    say: Say = lambda _: None,
) -> Result:
    """Put planned tasks to a model and keep everything in a folder: results.json, items.jsonl, answers.jsonl.

    Run again after an interruption it asks only what has no answer yet. What the folder holds of other tasks
    of the same model stays; what it holds of these with another seed or number of items does not, and `say`
    is told.

    Args:
        facts: of `inference.facts`: the fields of `Evaluated` but `identity`.
        planned: of `plan`.

    Raises DiskError; DataError: the folder's results.json is damaged; LockError: another evaluation is at it.
    """
    settings = _settings(planned, setup)
    with closing(Journal(folder / ANSWERS, model)) as journal:
        kept = ModelFolder(folder, "iq", facts, model.identity, suite=VERSION)
        if replaced := kept.replaced(settings):
            say(f"these take the place of {replaced}")
        outcomes = ask(journal, planned, quiet=quiet)
        if journal.reused:
            say(f"{journal.reused:,} answers were known from {folder / ANSWERS}")
        scores = _merged(kept.scores, planned, scores_of(planned, outcomes, setup))
        gone = {score.task for score in kept.scores} - {score.task for score in scores}
        if averages := [name for name in gone if name.removesuffix("_zh") in GROUPS]:
            say(f"no longer an average of {', '.join(averages)}: ask all tasks of the group at once")
        lines = [one.line() for mine in outcomes for one in mine]
        return kept.save(scores, settings, [each.label for each in planned], lines)


def _there(task: Task, setup: Setup) -> bool:
    """Whether a task has what it is made from."""
    return not isinstance(task, Symbolic) or task.there(setup.folder)


def _planned(task: Task, setup: Setup) -> Planned:
    items, notes = task.make(setup)
    return Planned(task, task.label(setup), items, notes)


def _named(tasks: Sequence[Task]) -> str:
    """Tasks in words; a group that is whole by its name."""
    words = []
    for name, group in GROUPS.items():
        mine = [task.name for task in tasks if task.group == group]
        whole = len(mine) == sum(task.group == group for task in TASKS.values())
        words += [name] if whole else mine
    return ", ".join(words)


def _chosen(names: Sequence[str], setup: Setup) -> list[Task]:
    """In the order of `TASKS`. Raises RecipeError."""
    wanted: set[str] = set()
    for name in names:
        group = [task.name for task in TASKS.values() if task.group == GROUPS.get(name)]
        if not group and name not in TASKS:
            close = _meant(name)
            raise RecipeError(
                f"The IQ suite has no task {name!r}",
                where=f"--task {name}",
                why=f"tasks: {', '.join(TASKS)}; groups: {', '.join(GROUPS)}",
                fix=f"did you mean --task {close}?" if close else "name one of these",
            )
        wanted.update(group or [name])
    if names:
        return [task for task in TASKS.values() if task.name in wanted]
    english = setup.language == "en"
    return [task for task in TASKS.values() if english or task.group != GROUPS["superglue_iq"]]


def _meant(name: str) -> str:
    """The task of that set (`rte`), or what the name looks like; "" if nothing does."""
    return next((task for task in TASKS if task.endswith(f"_{name}")), "") or did_you_mean(
        name, [*TASKS, *GROUPS]
    )


def _merged(known: list[Score], planned: Sequence[Planned], new: list[Score]) -> list[Score]:
    """The new scores and those of other tasks, in the paper's order; averages of what is new are old."""
    labels, groups = {each.label for each in planned}, {score.group for score in new}

    def stale(score: Score) -> bool:
        own = score.task.removesuffix("_zh") in TASKS
        return score.task.partition(" ")[0] in labels or (not own and score.group in groups)

    order: list[str] = []
    for average, group in GROUPS.items():
        order += [average, *(task.name for task in TASKS.values() if task.group == group)]
    places = {name: place for place, name in enumerate(order)}
    merged = [*(score for score in known if not stale(score)), *new]
    return sorted(merged, key=lambda score: places.get(score.task.removesuffix("_zh"), len(places)))


def _settings(planned: Iterable[Planned], setup: Setup) -> dict[str, Any]:
    return {
        each.label: {
            "seed": setup.seed,
            "items": len(each.items),
            "dials": {name: value for name, value in setup.dials.items() if name in each.task.dials},
        }
        for each in planned
    }
