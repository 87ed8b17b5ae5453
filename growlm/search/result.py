"""What a search found and what it cost, as JSON and as a report for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from growlm.recipe.schema import Recipe
from growlm.search.optimum import Optimum
from growlm.search.plan import Plan
from growlm.search.proxy import Proxy
from growlm.search.space import short, shown
from growlm.search.study import Result
from growlm.train.console import count, duration
from growlm.train.record import finite

DEAR = 0.1
"""Share of the target's FLOPs from which on a search is questioned."""
LISTED = 10
"""Points in the table of the report."""


@dataclass(frozen=True)
class Cost:
    """What all trials used. `seconds`: training, summed over the workers; `money`: by budget.price_per_hour
    of the machine that the workers share."""

    flops: float
    seconds: float
    money: float | None
    currency: str
    share: float
    """Of the FLOPs of the target's run."""


@dataclass(frozen=True)
class Outcome:
    """A finished search."""

    name: str
    folder: Path
    proxy: Proxy
    plan: Plan
    results: tuple[Result, ...]
    optimum: Optimum
    cost: Cost

    def about(self) -> list[str]:
        """Where the values of a transferred recipe come from."""
        optimum, losses = self.optimum, Counter(r.state for r in self.results)
        lines = [
            f"Transferred from search {self.name} ({self.folder}): {proxy_text(self.proxy.recipe)}.",
            f"{losses['done']} trials done, {losses['pruned']} pruned, {losses['diverged']} diverged; "
            f"best validation loss {optimum.chosen.order:.4f}, {_noise_text(optimum)}.",
            protocol(self.proxy),
        ]
        if optimum.edges:
            lines.append(
                f"Forced: on the edge of what was searched for {', '.join(e.name for e in optimum.edges)}."
            )
        return lines


def cost_of(results: Sequence[Result], proxy: Proxy, workers: int) -> Cost:
    """The cost of all trials, also of those that were pruned or diverged."""
    budget = proxy.recipe.budget
    seconds, flops = sum(r.seconds for r in results), sum(r.flops for r in results)
    price = budget.price_per_hour
    money = None if price is None else seconds / workers / 3600 * price
    return Cost(flops, seconds, money, budget.currency, flops / proxy.target_flops)


def protocol(proxy: Proxy) -> str:
    """What is assumed about the length of the run."""
    stage = proxy.recipe.stages[0]
    tokens, step = count(stage.tokens or 0), count(stage.tokens_per_step)
    return (
        f"Assumed: the best learning rate over {tokens} tokens ({proxy.token_share:.3g} of the run's) at "
        f"{step} tokens a step, decayed to the proxy's own end, is that of the whole run. muP transfers over "
        "size, not over tokens: at a fixed batch the best rate of a longer run is mostly lower (2409.19913)."
    )


def plan_text(proxy: Proxy, plan: Plan) -> str:
    """What a search will do and cost at most, for people."""
    lines = [proxy_text(proxy.recipe), *(f"  note: {note}" for note in proxy.notes), f"  {protocol(proxy)}"]
    for axis in plan.space.axes:
        about = " (fixed, not searched)" if len(axis.values) == 1 else ""
        if axis.numeric and len(axis.values) == 2:
            about = " (the better of two values is on the edge, which is refused: give three)"
        lines.append(f"  {axis.name}: {', '.join(map(short, axis.values))}{about}")
    flops = plan.trials * proxy.flops
    share = flops / proxy.target_flops
    lines.append(
        f"{plan.sampler}, {plan.trials} trials: at most {flops:.3g} FLOPs, {share:.2%} of the target's run, "
        "and its seeds"
    )
    if share > DEAR:
        tokens = count((proxy.recipe.stages[0].tokens or 0) * DEAR / share)
        lines.append(
            f"warning: more than {DEAR:.0%} of the target's run. Cheaper: fewer fields or values (--search), "
            f"--sampler qmc --trials 16, a narrower proxy (--width), shorter trials (--tokens {tokens} makes "
            f"it {DEAR:.0%})"
        )
    return "\n".join(lines)


def proxy_text(recipe: Recipe) -> str:
    """The proxy in a few words."""
    c, stage = recipe.model_config_of(0), recipe.stages[0]
    return (
        f"proxy d_model {c.d_model}, heads {c.n_heads}/{c.n_kv_heads}, ffn {c.d_ff}, layers {c.n_layers}, "
        f"{count(stage.tokens or 0)} tokens in {stage.steps} steps"
    )


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Everything, as JSON types; a loss that is no number is null."""
    o, proxy = outcome.optimum, outcome.proxy
    found = {
        "name": outcome.name,
        "proxy": {
            "shape": proxy.recipe.model_config_of(0).to_dict(),
            "tokens": proxy.recipe.stages[0].tokens,
            "token_share": proxy.token_share,
            "flops": proxy.flops,
            "notes": list(proxy.notes),
        },
        "protocol": protocol(proxy),
        "sampler": outcome.plan.sampler,
        "space": {axis.name: list(axis.values) for axis in outcome.plan.space.axes},
        "best": asdict(o.best),
        "chosen": asdict(o.chosen),
        "edges": [asdict(edge) for edge in o.edges],
        "seeds": {
            "losses": o.seed_losses,
            "mean": o.loss,
            "sigma": o.sigma,
            "threshold": o.noise,
        },
        "within_noise": [r.number for r in o.within_noise],
        "parabolas": [asdict(p) for p in o.parabolas],
        "spread": o.spread,
        "cost": asdict(outcome.cost),
        "trials": [asdict(r) for r in outcome.results],
    }
    return finite(found)


def outcome_text(outcome: Outcome, recipe: Path | None) -> str:
    """The report, in Markdown."""
    o, cost = outcome.optimum, outcome.cost
    states = Counter(r.state for r in outcome.results)
    money = "" if cost.money is None else f", {cost.money:.2f} {cost.currency}"
    lines = [
        f"# Search {outcome.name}",
        "",
        f"{proxy_text(outcome.proxy.recipe)[0].upper()}{proxy_text(outcome.proxy.recipe)[1:]}; "
        f"target: stage {outcome.proxy.target + 1} of the run.",
        "",
        f"- trials: {', '.join(f'{n} {state}' for state, n in sorted(states.items()))}",
        f"- cost: {cost.flops:.3g} FLOPs, {duration(cost.seconds)} of training{money}; "
        f"{cost.share:.2%} of the target run's FLOPs",
        f"- best: {shown(o.best.values)}, loss {o.best.order:.4f} (trial {o.best.number})",
        f"- seeds at the best point: {', '.join(f'{x:.4f}' for x in o.seed_losses)}; {_noise_text(o)}",
    ]
    if o.chosen is not o.best:
        lines.append(
            f"- used: {shown(o.chosen.values)}, loss {o.chosen.order:.4f} (trial {o.chosen.number}): "
            "within the noise of the best, and on no edge"
        )
    lines += [
        f"- {e.name} = {short(e.value)} is the {e.side} searched: the optimum may lie outside"
        for e in o.edges
    ]
    lines += [f"- recipe for the target: {recipe}" if recipe else "- no recipe was written", ""]
    lines += ["![loss over the searched fields](loss.svg)", "", *_table(outcome), "", *_curvature(o), ""]
    lines += ["## What is assumed", "", f"- {protocol(outcome.proxy)}"]
    lines += [f"- {note}" for note in outcome.proxy.notes]
    return "\n".join(lines) + "\n"


def _table(outcome: Outcome) -> list[str]:
    o, names = outcome.optimum, [axis.name for axis in outcome.plan.space.axes]
    done = sorted(
        (r for r in outcome.results if r.loss is not None and r.seed == outcome.plan.seed),
        key=lambda r: r.order,
    )
    rows = ["## The best points", "", f"| {' | '.join(names)} | loss | above the best | trial |"]
    rows.append("|---" * (len(names) + 3) + "|")
    for r in done[:LISTED]:
        above = (o.loss if r.number == o.best.number else r.order) - o.loss
        noise = " (within noise)" if r.number != o.best.number and above <= o.noise else ""
        values = " | ".join(short(r.values[name]) for name in names)
        rows.append(f"| {values} | {r.order:.4f} | {above:.4f}{noise} | {r.number} |")
    return rows


def _curvature(o: Optimum) -> list[str]:
    lines = ["## How sharp it is", ""]
    for p in o.parabolas:
        error = "" if p.uncertainty is None else f" +- {p.uncertainty:.2f} notches"
        lines.append(
            f"- {p.name}: vertex of the parabola at {p.best:.4g}{error}; one notch beside it costs "
            f"{p.curvature:.4f} (from {p.points} points)"
        )
    if not o.parabolas:
        lines.append("- too few finished points in a line for a parabola that opens upwards")
    lines += [f"- {name}: its values differ by {value:.4f} at their best" for name, value in o.spread.items()]
    return lines


def _noise_text(o: Optimum) -> str:
    if o.sigma is None:
        return "noise of seeds not measured"
    n = len(o.within_noise)
    others = "no other point" if n == 0 else "1 other point" if n == 1 else f"{n} other points"
    return f"noise of seeds {o.sigma:.4f}; {others} within {o.noise:.4f} of the best's mean {o.loss:.4f}"
