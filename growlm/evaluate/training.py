"""Tasks during training: chosen before the first step, asked of the engine that trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from growlm.data.tokenizer import Tokenizer
from growlm.errors import DataError, RecipeError
from growlm.evaluate.engine_model import Turn, model_of
from growlm.evaluate.iq import suite
from growlm.evaluate.iq.asking import Planned, ask
from growlm.evaluate.iq.scoring import WRITTEN, scores_of
from growlm.evaluate.iq.task import Setup
from growlm.evaluate.iq.tasks import GROUPS, TASKS
from growlm.evaluate.knowledge.benchmarks import BENCHMARKS, SUITES
from growlm.evaluate.result import Score
from growlm.inference.requests import Model
from growlm.parallel.compile import as_written
from growlm.parallel.engine import Engine
from growlm.recipe.keys import did_you_mean
from growlm.recipe.schema import Recipe

if TYPE_CHECKING:
    from growlm.evaluate.knowledge.run import Planned as PlannedBenchmark


@dataclass(frozen=True)
class TrainingTasks:
    """The tasks of a recipe, with their items: those of the IQ suite, and knowledge benchmarks."""

    planned: Sequence[Planned]
    setup: Setup
    benchmarks: Sequence[PlannedBenchmark]
    items: int

    def measure(
        self, engine: Engine, tokenizer: Tokenizer, context: int, turn: Turn = lambda: None
    ) -> list[dict[str, Any]]:
        """The scores of the engine's model as it is now; `turn` is called between batches. A collective."""
        model = model_of(engine, tokenizer, context, turn)
        with as_written(engine.layout):
            return [_recorded(score) for score in (*self._iq(model), *self._knowledge(model))]

    def _iq(self, model: Model) -> Iterator[Score]:
        if not self.planned:
            return
        labels = {each.label for each in self.planned} | set(GROUPS)
        scores = scores_of(self.planned, ask(model, self.planned, quiet=True), self.setup)
        yield from (score for score in scores if score.task in labels)

    def _knowledge(self, model: Model) -> Iterator[Score]:
        """The metric that counts of each benchmark, and of exams the whole."""
        if not self.benchmarks:
            return
        from growlm.evaluate.knowledge.run import measure

        counted = {
            (name, each.benchmark.metrics[0])
            for each in self.benchmarks
            for name in ([each.benchmark.name] if each.benchmark.subjects else each.benchmark.tasks.values())
        }
        scores = measure(model, self.benchmarks, self.items)
        yield from (score for score in scores if (score.task, score.metric) in counted)


def prepare_tasks(recipe: Recipe) -> TrainingTasks:
    """The tasks of `eval.tasks`, of `eval.task_items` items each.

    Raises RecipeError: a task is unknown, or its data are not in `eval.task_data`; DataError: the extra for
    knowledge benchmarks is not installed.
    """
    settings = recipe.eval
    known = [*TASKS, *GROUPS, *BENCHMARKS, *SUITES]
    for name in settings.tasks:
        if name not in known:
            close = did_you_mean(name, known)
            raise RecipeError(
                f"there is no task {name!r}",
                where="eval.tasks",
                why=f"known: {', '.join(known)}",
                fix=f"write {close!r}" if close else "write one of these",
            )
    iq = [name for name in settings.tasks if name in TASKS or name in GROUPS]
    knowledge = [name for name in settings.tasks if name not in iq]
    data = Path(settings.task_data) if settings.task_data else None
    setup = Setup(items=settings.task_items, data_dir=data)
    plan_benchmarks = _plan_of_benchmarks() if knowledge else lambda *_: []
    try:
        planned = suite.plan(iq, setup) if iq else []
        benchmarks = plan_benchmarks(knowledge, data)
    except DataError as error:
        raise RecipeError(
            "the data of a task are missing or damaged",
            where="eval.tasks",
            why=error.what + (f": {error.where}" if error.where and "--" not in error.where else ""),
            fix="name their folder: eval.task_data, or leave the task out",
        ) from error
    return TrainingTasks(planned, setup, benchmarks, settings.task_items)


def _plan_of_benchmarks() -> Callable[..., Any]:
    """Raises DataError with the line that installs what it needs."""
    from growlm.evaluate.knowledge.run import plan

    return plan


def _recorded(score: Score) -> dict[str, Any]:
    """What a run records of a score."""
    name = score.task if score.metric == WRITTEN else f"{score.task}, {score.metric}"
    fields = ("value", "low", "high", "items", "chance", "cut")
    return {"task": name} | {field: getattr(score, field) for field in fields}
