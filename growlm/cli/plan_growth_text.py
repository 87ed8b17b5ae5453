"""What `growlm plan RECIPE` prints of a recipe that grows: what growing is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from growlm.plan.growth.economics import Economics
    from growlm.plan.run_plan import RunPlan


def print_growth(console: Console, found: list[Economics], plan: RunPlan) -> None:
    """The three speed-ups by every law, between only the loss carrying over and all tokens doing so."""
    from growlm.plan.growth.economics import economics_words, fitted_range

    last = plan.stages[-1]
    console.print("\nWhat growing is worth: from only the loss carrying over to all tokens doing so")
    console.print(_table(found))
    for name, text in _facts(found):
        console.print(f"{name:<13} {text}")
    for words in economics_words(found, last.parameters):
        console.print(f"[bold]verdict[/bold]       {words}")
    warning = fitted_range(last.parameters, sum(stage.tokens for stage in plan.stages))
    if warning:
        console.print(f"{'note':<13} {warning}")


def _table(found: list[Economics]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("law", "loss", "equal tokens", "equal loss", "compute-optimal size"):
        table.add_column(name, no_wrap=True)
    for e in found:
        low, high = e.speed_ups
        table.add_row(
            e.law,
            f"{e.loss[0]:.4f} to {e.loss[1]:.4f}",
            f"{low.equal_tokens:.2f}x",
            f"{low.equal_loss:.2f}x to {high.equal_loss:.2f}x",
            f"{low.compute_optimal:.2f}x to {high.compute_optimal:.2f}x",
        )
    return table


def _facts(found: list[Economics]) -> Iterator[tuple[str, str]]:
    from growlm.plan.ticks import count

    for e in found:
        starts = ", ".join(count(tokens) for tokens in e.starts)
        ladder = " > ".join(count(leg.params) for leg in e.best.legs)
        yield (
            e.law,
            f"{count(e.optimal_params)} alone on the same FLOPs: {e.optimal_loss:.4f}; the last size on all "
            f"the tokens: {e.static_loss:.4f}",
        )
        yield (
            "",
            f"later stages start worth {starts} tokens; cheapest sizes to there: {ladder}, "
            f"{e.best.saving:.2f}x at equal loss",
        )
    bars = [f"{bar.name} {bar.gain[0]:.2f} .. {bar.gain[1]:.2f}x" for bar in found[0].bars[:3]]
    yield "depends on", f"at equal loss, {found[0].law}: {', '.join(bars)}"
