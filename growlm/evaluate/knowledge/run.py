"""Knowledge benchmarks of a model: what is there, asked, scored, and kept in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from growlm.errors import DataError, RecipeError
from growlm.evaluate.files import Folder
from growlm.evaluate.folder import ModelFolder, Say
from growlm.evaluate.harness import HarnessModel
from growlm.evaluate.knowledge.ask import HUB_ERRORS, ask, hub_tasks, tasks_of
from growlm.evaluate.knowledge.averages import average, scores_of
from growlm.evaluate.knowledge.benchmarks import BENCHMARKS, Benchmark, chosen
from growlm.evaluate.knowledge.package import load_package
from growlm.evaluate.knowledge.scores import Item, items
from growlm.evaluate.knowledge.sources import Loaded, load, wanted
from growlm.evaluate.result import Result, Score
from growlm.inference.journal import ANSWERS, Journal
from growlm.inference.requests import Model


@dataclass(frozen=True)
class Planned:
    """A benchmark that will be asked."""

    benchmark: Benchmark
    loaded: Loaded | None
    """None: the harness loads it from the hub."""
    shots: int
    limit: int | None
    """Documents of each of the harness's tasks, the first ones; None is all."""
    notes: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    """Of the notes those on other rows or examples than the published ones."""

    def settings(self) -> dict[str, Any]:
        """What its scores depend on."""
        names = self.loaded.files if self.loaded else ["the hub"]
        return {"shots": self.shots, "limit": self.limit, "data": [Path(name).name for name in names]}


def plan(
    names: Sequence[str],
    data_dir: Path | None,
    *,
    hub: bool = False,
    shots: int | None = None,
    limit: int | None = None,
    say: Say = lambda _: None,
) -> list[Planned]:
    """The benchmarks and suites that are named, or all that there are data for.

    Data are those below `data_dir`, or else an installed package's; with `hub` the hub's alone. Of what is
    missing or differs from the official set, `say` is told.

    Raises RecipeError: no such benchmark; DataError: a named one has no data, there are none, a bad row.
    """
    if limit is not None and limit < 1:
        raise RecipeError("A task needs an item", where=f"--limit {limit}", fix="--limit 100")
    found = []
    folder = Folder(data_dir) if data_dir and not hub else None
    for benchmark in chosen(names):
        loaded = None if hub else _load(benchmark, folder)
        if loaded is None and not hub:
            if benchmark.name in names:
                raise _missing(benchmark, data_dir)
            say(f"{benchmark.name} is left out: no file like {wanted(benchmark)}")
            continue
        planned = _planned(benchmark, loaded, shots, limit)
        for note in planned.notes:
            say(f"{benchmark.name}: {note}")
        found.append(planned)
    if not found:
        raise DataError(
            "There are no benchmarks here",
            where=f"--data-dir {data_dir or ''}",
            fix="name a folder with the files that docs/evaluation.md lists, or --hub",
        )
    return found


def measure(model: Model, planned: Sequence[Planned], items: int) -> list[Score]:
    """Scores without files or progress, of about `items` documents of each benchmark of `plan`.

    The same documents every time, spread over a benchmark's subjects, at least one of each. Global random
    states are left alone. Raises DataError: the hub does not give a benchmark.
    """
    scores: list[Score] = []
    for each in planned:
        subjects = len(each.loaded.splits) if each.loaded and each.benchmark.subjects else 1
        small = _planned(each.benchmark, each.loaded, each.shots, max(1, items // subjects))
        scores += _asked(HarnessModel(model), small, _tasks(small))[0]
    return scores


def run(
    model: Model,
    facts: Mapping[str, Any],
    planned: Sequence[Planned],
    folder: Path,
    *,
    say: Say = lambda _: None,
    quiet: bool = False,
) -> Result:
    """Ask a model what is planned and keep it in a folder: results.json, items.jsonl, answers.jsonl.

    Each benchmark is written when it is done. Run again after an interruption it asks only what has no answer
    yet. What the folder holds of other benchmarks of the same model stays.

    Args:
        facts: of `inference.facts`: the fields of `Evaluated` but `identity`.
        planned: of `plan`.

    Raises DiskError; DataError: the hub gave none of them, the folder's results.json is damaged; LockError:
    another evaluation is at it.
    """
    missed: list[DataError] = []
    journal = Journal(folder / ANSWERS, model)
    try:
        kept = ModelFolder(folder, "knowledge", facts, model.identity)
        for each in planned:
            try:
                tasks = _tasks(each)
            except DataError as error:
                missed.append(error)
                say(f"{each.benchmark.name} is left out: {error.what}: {error.why}")
                continue
            new, lines = _asked(HarnessModel(journal), each, tasks, quiet=quiet)
            scores = _merged(kept.scores, each.benchmark, new)
            settings = {each.benchmark.name: each.settings()}
            if replaced := kept.replaced(settings):
                say(f"{each.benchmark.name} takes the place of {replaced}")
            kept.save(scores, settings, each.benchmark.harness_tasks(), (item.line() for item in lines))
            say(_told(new[0]))
    finally:
        if journal.reused:
            say(f"{journal.reused:,} answers were known from {folder / ANSWERS}")
        journal.close()
    if len(missed) == len(planned):
        raise missed[-1]
    assert kept.result is not None, "plan gives at least one"
    return kept.result


def _load(benchmark: Benchmark, folder: Folder | None) -> Loaded | None:
    found = load(benchmark, folder.find) if folder else None
    return found or load_package(benchmark)


def _planned(benchmark: Benchmark, loaded: Loaded | None, shots: int | None, limit: int | None) -> Planned:
    """With the shots that are asked for or usual, as far as there are examples."""
    differs = list(loaded.notes) if loaded else []
    notes = [benchmark.remark] if benchmark.remark else []
    count = benchmark.shots if shots is None else shots
    if loaded and count > loaded.most_shots:
        why = (
            f"only {loaded.most_shots}" if loaded.examples else f"no {' or '.join(benchmark.examples)} split"
        )
        notes.append(f"too few examples ({why}), so {loaded.most_shots} shots, not {count}")
        count = loaded.most_shots
    if count and loaded and loaded.examples != benchmark.examples[0]:
        differs.append(f"examples from the {loaded.examples} split, not {benchmark.examples[0]}")
    if limit is not None:
        differs.append(f"the first {limit:,} documents" + (" of each subject" if benchmark.subjects else ""))
    return Planned(benchmark, loaded, count, limit, [*differs, *notes], differs)


def _asked(
    lm: HarnessModel, planned: Planned, tasks: Any, *, quiet: bool = True
) -> tuple[list[Score], list[Item]]:
    benchmark = planned.benchmark
    lm.progress = "" if quiet else benchmark.name
    samples = ask(lm, tasks, planned.limit)
    found = {task: items(task, logged, lm) for task, logged in samples.items()}
    scores = scores_of(benchmark, found, planned.shots, planned.notes, planned.differs)
    return scores, [item for each in found.values() for item in each]


def _tasks(planned: Planned) -> Any:
    """The harness's tasks. Raises DataError: the hub does not give their data."""
    if planned.loaded:
        return tasks_of(planned.loaded, planned.shots)
    try:
        return hub_tasks(planned.benchmark, planned.shots)
    except HUB_ERRORS as error:
        raise DataError(
            f"The hub did not give {planned.benchmark.name}",
            where="--hub",
            why=f"{type(error).__name__}: {str(error)[:300]}",
            fix="check the network, or name a folder with --data-dir",
        ) from error


def _missing(benchmark: Benchmark, data_dir: Path | None) -> DataError:
    return DataError(
        f"There are no data for {benchmark.name}",
        where=f"--data-dir {data_dir}" if data_dir else "--task",
        why=f"no file there is called like {wanted(benchmark)}" if data_dir else "no folder is named",
        fix="docs/evaluation.md lists the files; or --hub",
    )


def _merged(known: Sequence[Score], benchmark: Benchmark, new: Sequence[Score]) -> list[Score]:
    """New scores with those of other benchmarks, in the benchmarks' order, behind the average."""
    kept = [score for score in known if score.benchmark in BENCHMARKS and score.benchmark != benchmark.name]
    order = list(BENCHMARKS)
    merged = sorted([*kept, *new], key=lambda score: order.index(score.benchmark))
    total = average(merged)
    return merged if total is None else [total, *merged]


def _told(score: Score) -> str:
    line = f"{score.task}: {score.metric} {score.value:.2%} [{score.low:.2%}, {score.high:.2%}]"
    line += f", {score.items:,} items"
    if score.cut:
        line += f", {score.cut:,} of them cut, for the context is too short"
    if score.failed:
        line += f", {score.failed:,} of them without an answer"
    return line
