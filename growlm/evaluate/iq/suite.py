"""The IQ suite: which tasks, their items, a model's scores, and the files they are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from growlm import __version__
from growlm.checkpoint.disk import write_atomic
from growlm.errors import DataError, RecipeError
from growlm.evaluate.iq.asking import Outcome, Planned, ask
from growlm.evaluate.iq.scoring import scores_of
from growlm.evaluate.iq.symbolic import Symbolic
from growlm.evaluate.iq.task import VERSION, Language, Setup, Task, check_dials
from growlm.evaluate.iq.tasks import GROUPS, TASKS
from growlm.evaluate.result import RESULTS, Evaluated, Result, Score, load_result, save_result
from growlm.inference.journal import ANSWERS, Journal
from growlm.inference.requests import Model
from growlm.recipe.keys import did_you_mean

ITEMS = "items.jsonl"
Say = Callable[[str], None]


def plan(names: Sequence[str], setup: Setup, say: Say = lambda _: None) -> list[Planned]:
    """The tasks that are named, or all, with their items.

    A name is a task's or a group's (`rules`, `superglue_iq`). Without names, symbolic mapping that lacks its
    files is left out, and `say` is told which; in Chinese the English SuperGLUE-IQ is left out too.

    Raises RecipeError for an unknown name or dial, DataError for damaged data.
    """
    tasks = _chosen(names, setup)
    check_dials(tasks, setup.dials)
    if setup.items is not None and setup.items < 1:
        raise RecipeError("A task needs an item", where=f"--items {setup.items}", fix="--items 100")
    found = []
    for task in tasks:
        if isinstance(task, Symbolic) and not task.there(setup.folder) and not names:
            say(f"{task.name} is left out: it is made from {task.wanted()}, in --data-dir")
            continue
        items, notes = task.make(setup)
        for note in notes:
            say(f"{task.name}: {note}")
        found.append(Planned(task, task.label(setup), items, notes))
    if not found:
        raise DataError(
            "No task is left",
            where=f"--data-dir {setup.data_dir or ''}",
            fix="--data-dir FOLDER, or --task rules",
        )
    return found


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
) -> Result:
    """Put planned tasks to a model and keep everything in a folder: results.json, items.jsonl, answers.jsonl.

    Run again after an interruption it asks only what has no answer yet. What the folder holds of other tasks
    of the same model stays.

    Args:
        facts: of `inference.facts`: the fields of `Evaluated` but `identity`.
        planned: of `plan`.

    Raises DiskError.
    """
    journal = Journal(folder / ANSWERS, model)
    try:
        outcomes = ask(journal, planned, quiet=quiet)
    finally:
        journal.close()
    known = _known(folder, model.identity)
    labels = {each.label for each in planned}
    result = Result(
        kind="iq",
        model=Evaluated(**facts, identity=model.identity),
        scores=_merged(known.scores if known else [], planned, scores_of(planned, outcomes, setup)),
        settings={
            "suite": VERSION,
            "tasks": (known.settings.get("tasks", {}) if known else {}) | _settings(planned, setup),
        },
        growlm=__version__,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _write_items(folder / ITEMS, labels, outcomes, keep=known is not None)
    save_result(folder, result)
    return result


def _chosen(names: Sequence[str], setup: Setup) -> list[Task]:
    """In the order of `TASKS`. Raises RecipeError."""
    wanted: set[str] = set()
    for name in names:
        group = [task.name for task in TASKS.values() if task.group == GROUPS.get(name)]
        if not group and name not in TASKS:
            close = did_you_mean(name, [*TASKS, *GROUPS])
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


def _known(folder: Path, identity: str) -> Result | None:
    """What is in the folder already, if it is of this model and suite."""
    path = folder / RESULTS
    if not path.exists():
        return None
    known = load_result(path)
    same = known.model.identity == identity and known.settings.get("suite") == VERSION
    return known if same else None


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


def _write_items(path: Path, labels: set[str], outcomes: Sequence[list[Outcome]], *, keep: bool) -> None:
    kept = []
    if keep and path.exists():
        kept = [
            line
            for line in path.read_text("utf-8").split("\n")
            if line and json.loads(line)["task"] not in labels
        ]
    new = [json.dumps(one.line(), ensure_ascii=False) for mine in outcomes for one in mine]
    write_atomic(path, "".join(f"{line}\n" for line in [*kept, *new]).encode())
