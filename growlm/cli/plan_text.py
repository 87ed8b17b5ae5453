"""What `growlm plan RECIPE` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from growlm.cli.amounts import amount, cost_cells, cost_text, span
from growlm.cli.plan_growth_text import print_growth
from growlm.train.console import count

if TYPE_CHECKING:
    from growlm.plan.growth.economics import Economics
    from growlm.plan.layout import Layout
    from growlm.plan.machines import Machines
    from growlm.plan.ranking import Ranking
    from growlm.plan.run_plan import RunPlan
    from growlm.plan.step_time import StepTime

WIDTH = 118
LAYOUT = ("dp x tp x pp", "ZeRO", "micro", "recompute")
SHOWN = 10
"""Layouts listed of a stage."""


def print_plan(
    plan: RunPlan, machines: Machines, layouts: list[Ranking], growth: list[Economics], *, as_json: bool
) -> None:
    """The plan as text, or as JSON; `layouts`: of every stage, if they are asked for; `growth`: by law."""
    if as_json:
        found = asdict(plan) | {"prices_as_of": machines.prices_as_of, "currency": machines.currency}
        found |= {"layouts": [asdict(ranking) for ranking in layouts]} if layouts else {}
        found |= {"growth": [asdict(e) for e in growth]} if growth else {}
        typer.echo(json.dumps(found, indent=2))
        return
    console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    console.print(f"{plan.name} on {plan.setting.n_gpus} x {plan.setting.gpu.name}\n")
    console.print(_stages(plan, machines.currency))
    console.print()
    for name, text in _facts(plan, machines):
        console.print(f"{name:<13} {text}")
    if growth:
        print_growth(console, growth, plan)
    elif len(plan.stages) > 1:
        console.print(f"{'growth':<13} no verdict: the loss laws say nothing of runs as small as this")
    for stage, ranking in zip(plan.stages, layouts, strict=False):
        console.print(
            f"\n{stage.name}: {len(ranking.fits)} layouts fit; the fastest of each split and ZeRO level:"
        )
        console.print(_ranked(ranking))
        for rejected in ranking.rejected:
            console.print(f"  not {rejected.what}: {rejected.why}")


def _table(left: tuple[str, ...], right: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _stages(plan: RunPlan, currency: str) -> Table:
    right = ("GiB", "step", "MFU", "time", "GPU-hours", currency)
    table = _table(("stage", "params", "tokens", *LAYOUT), right)
    for s in plan.stages:
        memory = f"{s.memory.total / 2**30:.1f}" + ("" if s.fits else " !")
        step = [memory, span(s.step.seconds), f"{s.step.mfu:.1%}"]
        table.add_row(
            s.name, count(s.parameters), count(s.tokens), *_layout(s.layout), *step, *cost_cells(s.cost)
        )
    if len(plan.stages) > 1:
        tokens = count(sum(s.tokens for s in plan.stages))
        table.add_row("all", "", tokens, *[""] * (len(LAYOUT) + 3), *cost_cells(plan.total))
    return table


def _layout(layout: Layout) -> list[str]:
    """Its cells under `LAYOUT`."""
    split = f"{layout.dp} x {layout.tp} x {layout.pp}"
    split += f" in {layout.interleave} parts" if layout.interleave > 1 else ""
    every = f", 1 of {layout.recompute_every}" if layout.recompute_every > 1 else ""
    zero = str(layout.zero) if layout.dp > 1 else "-"
    return [split, zero, str(layout.micro_batch), layout.recompute + every]


def _facts(plan: RunPlan, machines: Machines) -> Iterator[tuple[str, str]]:
    """What is worth a line below the table."""
    gpu, setting = plan.setting.gpu, plan.setting
    for s in plan.stages:
        if not s.fits:
            needs = f"{s.memory.total / 2**30:.1f} of {gpu.memory_bytes / 2**30:.0f} GiB"
            yield "memory", f"{s.name} DOES NOT FIT: {needs}"
        if s.fastest and s.fastest.step.mfu > 1.03 * s.predicted_mfu:
            gain = s.fastest.step.mfu / s.predicted_mfu - 1
            split, zero, micro, recompute = _layout(s.fastest.layout)
            how = f"{split}, ZeRO {zero}, micro-batch {micro}, recompute {recompute}"
            yield "faster", f"{s.name} as {how}: {gain:.0%} by prediction"
    for s in plan.stages:
        yield "step", f"{s.name}: {_shares(s.step)}"
    f, zeros = plan.flops, _scale(plan.flops.model)
    again = f"; {f.executed / zeros[0]:.4g} with what is made again" if f.executed > f.model else ""
    yield "FLOPs", f"{f.model / zeros[0]:.4g} {zeros[1]} of the model, attention over the whole square{again}"
    half = f"{f.causal / zeros[0]:.4g} with half of the square"
    yield (
        "",
        f"{half}; {f.paper / zeros[0]:.4g} +- {f.paper_range / zeros[0]:.3g} by the papers' 84 +- 12 formula",
    )
    if plan.search_flops is not None:
        share = plan.search_flops / f.model
        yield (
            "search",
            f"{plan.search_flops:.4g} FLOPs of search besides, {share:.2%} as many",
        )
    energy = f"{gpu.watts:g} W x PUE {machines.pue:g}"
    grid = f"{machines.intensity(setting.grid):g} g/kWh ({setting.grid or machines.grid})"
    yield "energy", f"{amount(plan.total.kwh)} kWh: GPU-hours x {energy}"
    yield "carbon", f"{amount(plan.total.co2_kg)} kg CO2e at {grid}"
    if len(plan.stages) > 1:
        yield "from scratch", _static(plan, machines.currency)
    yield from _assumed(plan, machines)


def _static(plan: RunPlan, currency: str) -> str:
    """The last model on all tokens."""
    ratio = plan.static.gpu_hours / plan.total.gpu_hours
    size, cost = count(plan.stages[-1].parameters), cost_text(plan.static, currency)
    return f"{size} on all the tokens: {cost}: {ratio:.2f} x as much, at equal tokens, not at equal loss"


def _assumed(plan: RunPlan, machines: Machines) -> Iterator[tuple[str, str]]:
    gpu, setting = plan.setting.gpu, plan.setting
    peak = f"of the dense bf16 peak, {gpu.peak_flops / 1e12:g} TFLOP/s"
    if setting.mfu:
        yield "assumed", f"MFU as given, {peak}"
    else:
        yield "assumed", f"MFU predicted, {peak}: right within 15 % or so; give --mfu, or --measured RUN"
    yield "", f"{setting.goodput:.0%} of the time is spent in steps (goodput)"
    if setting.price_per_hour is not None:
        yield "", f"{setting.price_per_hour:.4g} {machines.currency} per GPU-hour, as given"
    elif gpu.price_per_hour is not None:
        price = f"{gpu.price_per_hour:g} {machines.currency} per GPU-hour"
        yield "", f"{price}, a price of {machines.prices_as_of}: write yours, --price"
    else:
        yield "", f"no price of {gpu.name} is known: write yours, --price"


def _ranked(ranking: Ranking) -> Table:
    """The fastest layouts: of each split and ZeRO level the best one."""
    table = _table(LAYOUT, ("GiB", "step", "MFU", "compute", "again", "sent", "bubble"))
    best = {(r.layout.tp, r.layout.pp, r.layout.zero): r for r in reversed(ranking.fits)}
    for r in sorted(best.values(), key=lambda r: r.step.seconds)[:SHOWN]:
        parts = (r.step.compute, r.step.recompute, r.step.communication, r.step.bubble)
        step = [f"{r.memory / 2**30:.1f}", span(r.step.seconds), f"{r.step.mfu:.1%}"]
        table.add_row(*_layout(r.layout), *step, *(f"{part / r.step.seconds:.0%}" for part in parts))
    return table


def _shares(step: StepTime) -> str:
    names = {
        "compute": "computing",
        "recompute": "made again",
        "communication": "sending",
        "bubble": "bubble",
    }
    parts = {text: getattr(step, name) / step.seconds for name, text in names.items()}
    return ", ".join(f"{share:.0%} {text}" for text, share in parts.items() if share >= 0.005)


def _scale(flops: float) -> tuple[float, str]:
    """1e21 and its name: the unit that leaves a number of FLOPs above 1."""
    units = ((1e24, "yotta"), (1e21, "zetta"), (1e18, "exa"), (1e15, "peta"), (1e12, "tera"))
    size, name = next((unit for unit in units if flops >= unit[0]), (1e9, "giga"))
    return size, f"{name}FLOPs"
