"""What `growlm plan` prints when it searches a growth schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from growlm.plan.growth.answer import Answer
    from growlm.plan.growth.pilot_plan import Pilot
    from growlm.plan.growth.pilot_reading import Pilots
    from growlm.plan.growth.request import Request
    from growlm.plan.growth.search import Schedule
    from growlm.plan.layout import Layout


WIDTH = 118


def print_answer(answer: Answer, currency: str) -> None:
    """The verdict first, then the schedule, what it is worth, and what that depends on."""
    asked, console = answer.asked, Console(highlight=False, soft_wrap=True, width=WIDTH)
    goal, gpus = asked.goal, f"{asked.setting.n_gpus} x {asked.setting.gpu.name}"
    money = asked.money(goal.seconds)
    bill = "" if money is None else f", {money:,.0f} {currency} at {asked.price:g}"
    hours = asked.setting.n_gpus * goal.seconds / 3600
    console.print(f"{gpus}, {goal.seconds / 86400:.1f} days: {hours:,.0f} GPU-hours{bill}\n")
    console.print(f"[bold]Verdict[/bold]: {answer.verdict.words}\n")
    console.print(_stages(answer.schedule, asked, currency))
    console.print(_loss_line(answer))
    console.print("\nHow many times cheaper than other ways, in time, pessimistic to optimistic:")
    console.print(_speed_ups(answer))
    console.print("\nThe same budget on one size alone:")
    console.print(_alone(answer))
    console.print("\nMore and less money:")
    console.print(_budgets(answer, currency))
    console.print("\nWhat the gain over the best single size depends on (middle of the range, first law):")
    console.print(_bars(answer))
    if answer.pilot:
        console.print("\n" + _pilot(answer.pilot, asked, currency))
    console.print(f"assumed: {_assumed(asked)}")
    for warning in answer.warnings:
        console.print(f"note: {warning}")


def pilot_lines(pilots: Pilots) -> Iterator[str]:
    """What the pilots say."""
    from growlm.plan.ticks import count

    for one in pilots.carried:
        small, large = one.params
        how = "against the larger size alone" if one.against_alone else "by the shape of its own curve: weak"
        yield (
            f"pilot: {count(small)} grown to {count(large)} after {count(one.first_tokens)} tokens began "
            f"worth {count(one.start)}, {count(one.pessimistic)} if only the loss had carried over: "
            f"rho {one.rho:.2f} ({one.interval[0]:.2f} to {one.interval[1]:.2f}), {how}"
        )
    if pilots.reuse:
        falls = [(one.first_tokens, pilots.reuse.exponent(one.first_tokens)) for one in pilots.carried]
        words = ", ".join(f"{power:.3f} after {count(first)}" for first, power in sorted(falls))
        yield f"pilots: the grown model's loss falls with its tokens to the power {words} (2510.06548)"


def _stages(schedule: Schedule, asked: Request, currency: str) -> Table:
    from growlm.plan.ticks import count

    table = _table("stage", "shape", "tokens", "layout", "GiB", "MFU", "days", currency)
    for rung, tokens in zip(schedule.rungs, schedule.tokens, strict=True):
        c, seconds = rung.config, tokens / rung.tokens_per_second
        money = asked.money(seconds)
        table.add_row(
            count(rung.params),
            f"d_model {c.d_model}, {c.n_layers} layers, {c.n_heads} heads",
            count(tokens),
            _layout(rung.layout),
            f"{rung.memory / 2**30:.0f}",
            f"{rung.mfu:.0%}",
            f"{seconds / 86400:.2f}",
            "-" if money is None else f"{money:,.0f}",
        )
    return table


def _assumed(asked: Request) -> str:
    from growlm.plan.growth.request import RAMP_STEPS
    from growlm.plan.growth.search import DISK, RESTART
    from growlm.plan.growth.verdict import PAYS

    mfu = "as given" if asked.setting.mfu else "predicted, right within 15 % or so"
    return (
        f"MFU {mfu}; {asked.setting.goodput:.0%} of the time in steps; a growth costs {RESTART / 60:.0f} "
        f"minutes, 12 bytes per parameter at {DISK / 1e9:g} GB/s and half of the {RAMP_STEPS} steps of its "
        f"ramp, and pays from {PAYS:.2f}x on"
    )


def _layout(layout: Layout) -> str:
    sizes = [f"{name} {n}" for name in ("dp", "tp", "pp") if (n := getattr(layout, name)) > 1]
    zero = [f"ZeRO {layout.zero}"] if layout.dp > 1 else []
    again = [f"recompute {layout.recompute}"] if layout.recompute != "none" else []
    return ", ".join([" x ".join(sizes) or "one GPU", *zero, f"micro {layout.micro_batch}", *again])


def _loss_line(answer: Answer) -> str:
    from growlm.plan.growth.answer import LAW_ERROR, loss_interval

    low, high = loss_interval(answer.schedule)
    losses = answer.schedule.losses.items()
    each = "; ".join(f"{law} {_range(high, low, '.3f')}" for law, (low, high) in losses)
    return (
        f"Predicted loss {low:.3f} to {high:.3f} nats per token on data like Chinchilla's: {each} by what "
        f"carries over, and {LAW_ERROR:.1%} for the laws' own error"
    )


def _speed_ups(answer: Answer) -> Table:
    table = _table("law", "equal tokens", "equal loss", "compute-optimal size")
    for law, (low, high) in answer.speed_ups.items():
        table.add_row(
            law,
            _range(low.equal_tokens, high.equal_tokens, ".2f") + "x",
            _range(low.equal_loss, high.equal_loss, ".2f") + "x",
            _range(low.compute_optimal, high.compute_optimal, ".2f") + "x",
        )
    return table


def _alone(answer: Answer) -> Table:
    from growlm.plan.ticks import count

    table = _table("", "parameters", "tokens", "loss")
    rows = {"best size that is wanted": answer.found.static, "the last size": answer.found.target}
    if answer.free.rungs[0].params != answer.found.static.rungs[0].params:
        rows["best of any size"] = answer.free
    for name, static in rows.items():
        losses = [loss for loss, _ in static.losses.values()]
        table.add_row(
            name,
            count(static.rungs[0].params),
            count(static.tokens[0]),
            _range(min(losses), max(losses), ".3f"),
        )
    return table


def _budgets(answer: Answer, currency: str) -> Table:
    from growlm.plan.ticks import count

    table = _table("budget", currency, "one size", "loss", "schedule", "loss of it")
    for point in answer.points:
        alone = [loss for loss, _ in point.static.losses.values()]
        ends = [loss for pair in point.schedule.losses.values() for loss in pair]
        money = answer.asked.money(point.schedule.seconds)
        table.add_row(
            f"x {point.budget:g}",
            "-" if money is None else f"{money:,.0f}",
            count(point.static.rungs[0].params),
            _range(min(alone), max(alone), ".3f"),
            " > ".join(count(rung.params) for rung in point.schedule.rungs),
            _range(min(ends), max(ends), ".3f"),
        )
    return table


def _bars(answer: Answer) -> Table:
    table = _table("assumption", "from", "to", "gain", "loss")
    for bar in answer.bars:
        table.add_row(
            bar.name,
            *bar.ends,
            f"{bar.gain[0]:.2f} .. {bar.gain[1]:.2f}x",
            f"{bar.loss[0]:.3f} .. {bar.loss[1]:.3f}",
        )
    return table


def _pilot(pilot: Pilot, asked: Request, currency: str) -> str:
    from growlm.plan.ticks import count

    (small, large), (first, second) = pilot.grown.rungs, pilot.grown.tokens
    money = asked.money(pilot.seconds)
    bill = "" if money is None else f", {money:,.0f} {currency}"
    needs = "at no rho up to 1" if pilot.needs is None else f"if rho is {pilot.needs:.2f} or more"
    runs = (
        f"(1) {count(small.params)} on {count(first)} tokens, grown to {count(large.params)} for "
        f"{count(second)}; (2) {count(large.params)} alone on {count(pilot.alone.tokens[0])}"
    )
    return (
        f"[bold]Pilot[/bold] ({pilot.seconds / 3600:.1f} hours on all GPUs{bill}): {runs}. Then the same "
        "command with --pilot RUN1 --pilot RUN2 reads off rho, how much of what may carry over did: 0 to 1. "
        f"Growing pays {needs}."
    )


def _range(low: float, high: float, form: str) -> str:
    texts = f"{low:{form}}", f"{high:{form}}"
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True)
    return table
