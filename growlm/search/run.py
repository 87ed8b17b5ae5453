"""A search from its first command to its end: trials, optimum, transfer; the same command continues it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from growlm.checkpoint.disk import write_atomic
from growlm.data.dataset import TokenDataset
from growlm.errors import DriftError, EdgeError, GrowLMError
from growlm.recipe.keys import leaves, show_key
from growlm.recipe.schema import Recipe
from growlm.recipe.template import recipe_toml
from growlm.search.optimum import Optimum, covered, find_optimum, missing_beside, neighbours
from growlm.search.picture import picture
from growlm.search.plan import Plan, Pruner, make_pruner, point_name, seed_slots
from growlm.search.progress import SearchProgress
from growlm.search.proxy import Proxy
from growlm.search.result import Outcome, cost_of, outcome_json, outcome_text
from growlm.search.space import Value, axis_text, recipe_at, shown
from growlm.search.storage import open_storage
from growlm.search.study import Result, Slot, Study
from growlm.search.transferred import refuse_overridden, transferred, transferred_toml
from growlm.search.trial import OUTPUT, gpus, warm_up
from growlm.search.workers import Workers
from growlm.train.signals import StopRequest

RECIPE, RESULT, REPORT, PICTURE, PROXY = "recipe.toml", "result.json", "report.md", "loss.svg", "proxy.toml"
_FREE = ("name", "data.path", "eval", "checkpoint", "timeouts", "budget", "train.device", "train.threads")
"""What may change under a search: nothing that a loss depends on."""


@dataclass(frozen=True)
class Settings:
    """How a search is carried out."""

    name: str
    folder: Path
    storage: str | None
    workers: int
    seeds: int
    pruner: Pruner
    force: bool


def search(target: Recipe, proxy: Proxy, plan: Plan, settings: Settings) -> Outcome:
    """Search to the end, from wherever it stands, and write the transferred recipe, result and report.

    Raises EdgeError, after the report, if the optimum is on the edge of what was searched (unless forced);
    Preempted when stopped; DriftError if this is not the search that the study was begun with; GrowLMError
    if no trial could be trained.
    """
    refuse_overridden(target, proxy.target, plan.space)
    data = TokenDataset.open(Path(proxy.recipe.data.path)).fingerprint
    warm_up()
    storage, lock = open_storage(settings.folder, settings.storage)
    stage = proxy.recipe.stages[0]
    pruner = make_pruner(settings.pruner, stage.tokens or 0, proxy.recipe.eval.every_tokens)
    study = Study(storage, settings.name, plan.distributions(), plan.sampler_of, pruner, lock)
    _same_search(study, proxy.recipe, plan, data)
    write_atomic(settings.folder / PROXY, recipe_toml(proxy.recipe).encode())
    _work(study, proxy, plan, settings)
    results = study.results()
    plan = _covered(plan, results)
    optimum = find_optimum(plan.space, results, plan.seed)
    if optimum is None:
        raise _nothing_done(results, settings.folder)
    if plan.sampler == "grid" and (missing := missing_beside(plan.space, results, optimum, plan.seed)):
        raise _nothing_beside(missing[0], settings.folder)
    outcome = Outcome(
        name=settings.name,
        folder=settings.folder,
        proxy=proxy,
        plan=plan,
        results=tuple(results),
        optimum=optimum,
        cost=cost_of(results, proxy, settings.workers),
    )
    return _write(target, outcome, settings)


def _work(study: Study, proxy: Proxy, plan: Plan, settings: Settings) -> None:
    """All trials of the plan; then the best point under other seeds, and what was pruned right beside it,
    to its end, until the best point stays the best."""

    def recipe_of(values: dict[str, Value], seed: int) -> Recipe:
        data = proxy.recipe.model_dump(exclude_unset=True)
        data |= {"seed": seed, "train": data.get("train", {}) | {"threads": 1}}
        return recipe_at(Recipe.model_validate(data), values)

    slots = plan.slots()
    count = max(settings.workers, 1)
    with SearchProgress(study, slots) as progress, StopRequest() as stop:
        workers = Workers(study, recipe_of, settings.folder / "trials", count, gpus(), progress)
        while True:
            study.queue(slots)
            progress.plan(slots)
            workers.work(slots, stop)
            results = study.results()
            optimum = find_optimum(_covered(plan, results).space, results, plan.seed)
            more = (
                [] if optimum is None else _beside(_covered(plan, results), settings.seeds, optimum, results)
            )
            known = {slot.name for slot in slots}
            if all(slot.name in known for slot in more):
                return
            slots = [*slots, *(slot for slot in more if slot.name not in known)]


def _covered(plan: Plan, results: Sequence[Result]) -> Plan:
    return replace(plan, space=covered(plan.space, results)) if plan.sampler == "grid" else plan


def _beside(plan: Plan, seeds: int, optimum: Optimum, results: Sequence[Result]) -> list[Slot]:
    """Further trials that judge the best point."""
    best = optimum.best.values
    finished = [r.values for r in results if r.seed == plan.seed and r.measured]
    points = {point_name(r.values): r.values for r in (optimum.best, optimum.chosen)}.values()
    around = [p for at in points for p in neighbours(plan.space, at)] if plan.sampler == "grid" else []
    beside = [point for point in around if point not in finished]
    whole = [Slot(f"whole/{point_name(point)}", point, plan.seed, prunable=False) for point in beside]
    return [*whole, *seed_slots(best, range(plan.seed + 1, plan.seed + seeds))]


def _same_search(study: Study, proxy: Recipe, plan: Plan, data: str) -> None:
    """Refuse to mix losses that do not compare. Raises DriftError."""
    searched = sorted(axis.name for axis in plan.space.axes)
    fields = {show_key(key): value for key, value in leaves(proxy.model_dump(mode="json")).items()}
    kept = {
        name: value
        for name, value in fields.items()
        if name not in searched and not any(name == f or name.startswith(f"{f}.") for f in _FREE)
    }
    now = {"searched fields": searched, "data": data, "seed": plan.seed, **kept}
    before: dict[str, Any] = study.remember("search", now)
    names = sorted(name for name in now.keys() | before.keys() if now.get(name) != before.get(name))
    if names:
        changes = [f"{name}: {_brief(before.get(name))} -> {_brief(now.get(name))}" for name in names[:5]]
        raise DriftError(
            "this is another search than the one of this name: " + "; ".join(changes),
            why="losses of different proxies, data or fields do not compare; only values may be added",
            fix="undo the change, or begin another search with --name",
        )


def _write(target: Recipe, outcome: Outcome, settings: Settings) -> Outcome:
    """The files of the outcome. Raises EdgeError, after all but the recipe, for an optimum on the edge."""
    folder, optimum = settings.folder, outcome.optimum
    usable = not optimum.edges or settings.force
    if usable:
        values = optimum.chosen.values
        text = transferred_toml(
            target, transferred(target, outcome.proxy.target, values), outcome.about(), values
        )
        write_atomic(folder / RECIPE, text.encode())
    else:
        (folder / RECIPE).unlink(missing_ok=True)
    write_atomic(folder / PICTURE, picture(outcome).encode())
    write_atomic(folder / REPORT, outcome_text(outcome, folder / RECIPE if usable else None).encode())
    result = outcome_json(outcome) | {"recipe": str(folder / RECIPE) if usable else None}
    write_atomic(folder / RESULT, json.dumps(result, indent=2, allow_nan=False).encode())
    if not usable:
        where = "; ".join(f"{e.name} = {e.value:g} is the {e.side} searched" for e in optimum.edges)
        wider = {e.name: e.extend for e in optimum.edges}
        texts = [wider.get(axis.name, axis_text(axis)) for axis in outcome.plan.space.axes]
        extend = " ".join(f'--search "{text}"' for text in texts)
        raise EdgeError(
            f"the best point lies on the edge of what was searched: {where}",
            where=str(folder / REPORT),
            why="the optimum may lie outside, so no recipe was written",
            fix=f"the same command with {extend} (points that are done are kept), or --force",
        )
    return outcome


def _nothing_done(results: Sequence[Result], folder: Path) -> GrowLMError:
    states = [r.state for r in results]
    diverged = sum(r.loss == math.inf for r in results)
    return GrowLMError(
        f"none of {len(states)} trials came to its end: {diverged} diverged, {states.count('failed')} failed",
        where=str(folder / "trials"),
        fix="search lower learning rates" if diverged else "see output.txt of a trial",
    )


def _nothing_beside(failed: Result, folder: Path) -> GrowLMError:
    return GrowLMError(
        f"no loss right beside the optimum, at {shown(failed.values)}: trial {failed.number} {failed.state}",
        where=str(folder / "trials" / f"{failed.number:04d}" / OUTPUT),
        why="the optimum may lie there, so nothing was written",
        fix="put it right and give the same command again, which trains it anew",
    )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
