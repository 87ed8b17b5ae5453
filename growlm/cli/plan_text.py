"""What `growlm plan RECIPE` prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from growlm.plan.cost import Cost
    from growlm.plan.layout import Layout
    from growlm.plan.machines import Machines
    from growlm.plan.run_plan import RunPlan
    from growlm.recipe.schema import Recipe


def print_plan(plan: RunPlan, recipe: Recipe, machines: Machines, *, layouts: bool, as_json: bool) -> None:
    """The plan as text, or as JSON."""
    if as_json:
        typer.echo(json.dumps(asdict(plan), indent=2))
        return
    console = Console(highlight=False)
    console.print(f"{plan.name} on {plan.setting.n_gpus} x {plan.setting.gpu.name}")
    console.print(_stages(plan, machines.currency))


def _stages(plan: RunPlan, currency: str) -> Table:
    from growlm.train.console import count

    table = Table(box=None, pad_edge=False)
    for name in ("stage", "parameters", "tokens", "layout"):
        table.add_column(name)
    for name in ("GiB", "step", "MFU", "days", "GPU-hours", currency):
        table.add_column(name, justify="right")
    for s in plan.stages:
        head = [s.name, count(s.parameters), count(s.tokens), layout_text(s.layout)]
        step = [f"{s.memory.total / 2**30:.1f}", f"{s.step.seconds:.3g} s", f"{s.step.mfu:.1%}"]
        table.add_row(*head, *step, *_cost(s.cost))
    table.add_row("all", "", count(sum(s.tokens for s in plan.stages)), "", "", "", "", *_cost(plan.total))
    return table


def _cost(cost: Cost) -> list[str]:
    return [f"{cost.days:.2f}", f"{cost.gpu_hours:,.0f}", "-" if cost.money is None else f"{cost.money:,.0f}"]


def layout_text(layout: Layout) -> str:
    """dp 12 x tp 4 x pp 4, micro-batch 1, ZeRO-1."""
    parts = [f"dp {layout.dp} x tp {layout.tp} x pp {layout.pp}", f"micro-batch {layout.micro_batch}"]
    parts += [f"ZeRO-{layout.zero}"] if layout.dp > 1 else []
    parts += [f"recompute {layout.recompute}"] if layout.recompute != "none" else []
    return ", ".join(parts)
