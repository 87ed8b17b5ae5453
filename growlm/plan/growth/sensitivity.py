"""What a plan's loss and gain depend on most: one assumption changed at a time. No torch.

The schedule stays as it is, in time; what it then does, and what the best single size does, is computed anew.
Exponents turn around a model of 1B parameters on 20B tokens, the middle of what the laws were fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from growlm.plan.growth.request import Request
from growlm.plan.growth.rungs import Rung
from growlm.plan.growth.search import Belief, Goal, Schedule
from growlm.plan.growth.theory import Legs, final_loss, speed_ups
from growlm.plan.growth.verdict import gains_at
from growlm.scaling.laws import Chinchilla

_SIZE, _TOKENS = 1e9, 2e10
_EXPONENT = 0.02
"""About a standard error of alpha and of beta in the refit of the Chinchilla runs (2404.10102)."""

_SPEED = _SHARE = 0.2
_MIDDLE = "one"

_Change = tuple[Chinchilla, float, float, float]
"""A law, rho, and factors on the speed of all stages and of those before the last."""


@dataclass(frozen=True)
class Bar:
    """What one assumption at its low and its high end does to loss and gain."""

    name: str
    ends: tuple[str, str]
    loss: tuple[float, float]
    gain: tuple[float, float]

    @property
    def swing(self) -> float:
        """How far the gain moves."""
        return abs(self.gain[1] - self.gain[0])


def sensitivity(schedule: Schedule, rungs: Sequence[Rung], asked: Request) -> list[Bar]:
    """The bars, widest first, around the first law and the middle of what may carry over.

    A price changes what is bought only where money is the limit.
    """
    goal, (low, high) = asked.goal, schedule.belief.rho
    rho, laws = (low + high) / 2, schedule.belief.laws
    law = next(iter(laws.values()))

    def ends(name: str, words: tuple[str, str], changed: Sequence[_Change]) -> Bar:
        values = [_at(schedule, rungs, goal, *change) for change in changed]
        return Bar(name, words, (values[0][0], values[1][0]), (values[0][1], values[1][1]))

    bars = [
        ends("carried over (rho)", (f"{low:.2g}", f"{high:.2g}"), [(law, low, 1, 1), (law, high, 1, 1)]),
        *(
            ends(name, words, [(changed, rho, 1, 1) for changed in pair])
            for name, words, pair in _other_constants(law)
        ),
        ends("MFU of all sizes", ("-20 %", "+20 %"), [(law, rho, 1 - _SPEED, 1), (law, rho, 1 + _SPEED, 1)]),
    ]
    if len(schedule.rungs) > 1:
        bars.append(
            ends(
                "MFU before the last",
                ("-20 %", "+20 %"),
                [(law, rho, 1, 1 - _SPEED), (law, rho, 1, 1 + _SPEED)],
            )
        )
    if asked.price:
        prices = (asked.price * (1 - _SPEED), asked.price * (1 + _SPEED))
        buys = [asked.price / price if asked.limit == "--money" else 1.0 for price in prices]
        words = f"{prices[0]:.3g}", f"{prices[1]:.3g}"
        bars.append(ends("price", words, [(law, rho, factor, 1) for factor in buys]))
    if len(laws) > 1:
        names = list(laws)[:2]
        words = names[0], names[1]
        bars.append(ends("the law", words, [(laws[name], rho, 1, 1) for name in names]))
    return sorted(bars, key=lambda bar: -bar.swing)


def legs_sensitivity(legs: Legs, laws: Mapping[str, Chinchilla], rho: tuple[float, float]) -> list[Bar]:
    """The same for the legs of a recipe, in seconds: the gain is the speed-up at equal loss."""
    middle, law = sum(rho) / 2, next(iter(laws.values()))
    early = [
        [replace(leg, token_cost=leg.per_token / factor) for leg in legs[:-1]] + [legs[-1]]
        for factor in (1 - _SPEED, 1 + _SPEED)
    ]

    def bar(name: str, words: tuple[str, str], changed: Sequence[tuple[Legs, Chinchilla, float]]) -> Bar:
        losses = [final_loss(known, run, at) for run, known, at in changed]
        found = [speed_ups(known, run, at).equal_loss for run, known, at in changed]
        return Bar(name, words, (losses[0], losses[1]), (found[0], found[1]))

    bars = [
        bar("carried over (rho)", (f"{rho[0]:.2g}", f"{rho[1]:.2g}"), [(legs, law, at) for at in rho]),
        *(
            bar(name, words, [(legs, changed, middle) for changed in pair])
            for name, words, pair in _other_constants(law)
        ),
        bar("MFU before the last", ("-20 %", "+20 %"), [(run, law, middle) for run in early]),
    ]
    return sorted(bars, key=lambda found: -found.swing)


def _at(
    schedule: Schedule,
    rungs: Sequence[Rung],
    goal: Goal,
    law: Chinchilla,
    rho: float,
    all_speed: float,
    early_speed: float,
) -> tuple[float, float]:
    """(loss, gain) of the schedule under changed assumptions; `early_speed`: of stages before the last."""
    last = len(schedule.rungs) - 1
    factors = [all_speed * (1 if k == last else early_speed) for k in range(last + 1)]
    fast = [_faster(rung, all_speed) for rung in rungs]
    changed = replace(
        schedule,
        rungs=tuple(_faster(rung, f) for rung, f in zip(schedule.rungs, factors, strict=True)),
        tokens=tuple(n * f for n, f in zip(schedule.tokens, factors, strict=True)),
        belief=Belief({_MIDDLE: law}, (rho, rho)),
    )
    return changed.loss(_MIDDLE, rho), gains_at(changed, fast, goal, rho)[_MIDDLE]


def _faster(rung: Rung, factor: float) -> Rung:
    return replace(rung, tokens_per_second=rung.tokens_per_second * factor)


def _other_constants(law: Chinchilla) -> Iterator[tuple[str, tuple[str, str], list[Chinchilla]]]:
    """(name, what is changed, the two laws) for each constant but E, which moves no gain."""
    step = f"-{_EXPONENT:g}", f"+{_EXPONENT:g}"
    yield "alpha of the law", step, [_turned(law, alpha=sign * _EXPONENT) for sign in (-1, 1)]
    yield "beta of the law", step, [_turned(law, beta=sign * _EXPONENT) for sign in (-1, 1)]
    part = "-20 %", "+20 %"
    yield "A of the law", part, [replace(law, A=law.A * factor) for factor in (1 - _SHARE, 1 + _SHARE)]
    yield "B of the law", part, [replace(law, B=law.B * factor) for factor in (1 - _SHARE, 1 + _SHARE)]


def _turned(law: Chinchilla, *, alpha: float = 0.0, beta: float = 0.0) -> Chinchilla:
    """The law with other exponents, the same at the middle of its data."""
    return replace(
        law,
        alpha=law.alpha + alpha,
        beta=law.beta + beta,
        A=law.A * _SIZE**alpha,
        B=law.B * _TOKENS**beta,
    )
