"""What `growlm train --dry-run` prints: every stage over its ranks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import typer

from growlm.cli.amounts import cost_text

if TYPE_CHECKING:
    from growlm.parallel.rehearsal import Rehearsal
    from growlm.recipe.schema import Recipe


def dry_run(
    recipe: Recipe, ranks: int | None, memory: int | None, gpus: str | None, *, as_json: bool
) -> None:
    """Lay out every stage of a recipe, check it, and print what a rank of it has to do, for how long and for
    how much: the figures of `growlm plan`."""
    from growlm.parallel.rehearsal import rehearse
    from growlm.plan.cost import Cost
    from growlm.plan.machines import load_machines
    from growlm.plan.run_plan import plan_stage, setting_of
    from growlm.recipe.check import check_recipe

    check_recipe(recipe)
    machines = load_machines()
    setting = setting_of(recipe, machines, gpus)
    world = ranks or setting.n_gpus
    setting = replace(setting, n_gpus=world)
    if gpus and memory is None:
        memory = setting.gpu.memory_bytes
    stages, costs = [], []
    for index in range(len(recipe.stages)):
        stages.append(rehearse(recipe, index, world, memory))
        planned = plan_stage(recipe, index, stages[-1].layout, machines, setting)
        costs.append(planned.cost)
        if not as_json:
            typer.echo(_text(stages[-1], memory, cost_text(planned.cost, machines.currency)))
    if as_json:
        found = [asdict(stage) | {"cost": asdict(cost)} for stage, cost in zip(stages, costs, strict=True)]
        typer.echo(json.dumps({"ranks": world, "gpu": setting.gpu.name, "stages": found}, indent=2))
    else:
        typer.echo(f"{len(stages)} stages over {world} ranks: every shard has its planned shape")
        total = cost_text(sum(costs, Cost()), machines.currency)
        typer.echo(f"predicted for {world} x {setting.gpu.name}: {total}; growlm plan says how")
    _require_memory(stages, memory)


def _require_memory(stages: list[Rehearsal], memory: int | None) -> None:
    """Raise RecipeError if a stage is estimated to need more than there is."""
    from growlm.checkpoint.disk import human_bytes
    from growlm.errors import RecipeError

    for stage in stages:
        if memory and stage.memory.total > memory:
            raise RecipeError(
                f"stage {stage.name} does not fit: {human_bytes(stage.memory.total)} on rank "
                f"{stage.fullest_rank}, of {human_bytes(memory)}",
                where=f"stages.{stage.name}.layout",
                fix='more tp or pp, zero = 3, recompute = "full", a smaller micro_batch_size, or more ranks; '
                '"auto" chooses what fits',
            )


def _text(r: Rehearsal, memory: int | None, cost: str) -> str:
    from growlm.checkpoint.disk import human_bytes
    from growlm.train.console import count

    layout = r.layout
    extras = [f"ZeRO-{layout.zero}"] if layout.dp > 1 else []
    extras += [f"{layout.replicas} replicas"] if layout.replicas > 1 else []
    extras += ["sequence parallel"] if layout.sequence_parallel else []
    extras += [f"{layout.interleave} parts per rank"] if layout.interleave > 1 else []
    every = f" of every {layout.recompute_every} blocks" if layout.recompute_every > 1 else ""
    extras += [f"recomputation {layout.recompute}{every}"] if layout.recompute != "none" else []
    extras += ["compiled"] if layout.compile else []
    kinds = ", ".join(f"{name} {human_bytes(size)}" for name, size in asdict(r.memory).items() if size)
    sent = ", ".join(f"{name} {human_bytes(size)}" for name, size in asdict(r.traffic).items() if size)
    given = f" of {human_bytes(memory)}" if memory else ""
    given += ": DOES NOT FIT," if memory and r.memory.total > memory else ""
    rows = [
        ("layout", f"dp {layout.dp} x tp {layout.tp} x pp {layout.pp}" + "".join(f", {x}" for x in extras)),
        ("batch", f"{r.micro_batches} micro-batches of {layout.micro_batch} on each of {layout.dp} dp ranks"),
        ("parameters", f"{count(r.parameters)}, of which a rank stores at most {count(r.largest_share)}"),
        ("optimizer", f"{human_bytes(r.memory.optimizer)} on a rank"),
        ("activations", f"{human_bytes(r.memory.activations)} on rank {r.fullest_rank}, estimated"),
        ("memory", f"{human_bytes(r.memory.total)}{given} on rank {r.fullest_rank}, estimated: {kinds}"),
        ("sent", f"{human_bytes(r.traffic.total)} by a rank in a step" + (f": {sent}" if sent else "")),
    ]
    if layout.pp > 1:
        slowest = max(r.balance)
        rows.append(("pipeline", f"slowest stage {slowest:.2f} of the mean, bubble {r.bubble:.1%}"))
    rows.append(("predicted", cost))
    rows.append(("checked", f"{r.ranks_built} ranks built without memory, the pieces of all ranks add up"))
    return "\n".join([f"stage {r.name}", *(f"  {name:<12}{value}" for name, value in rows), ""])
