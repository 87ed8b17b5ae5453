"""What a plan's loss and gain depend on most: one assumption changed at a time. No torch.

The schedule stays as it is, in time; what it then does, and what the best single size does, is computed anew.
Exponents turn around a model of 1B parameters on 20B tokens, the middle of what the laws were fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from growlm.plan.growth_search import Belief, Goal, Schedule
from growlm.plan.rungs import Rung
from growlm.plan.verdict import gain
from growlm.scaling.laws import Chinchilla

_SIZE, _TOKENS = 1e9, 2e10
_EXPONENT = 0.02
"""About a standard error of alpha and of beta in the refit of the Chinchilla runs (2404.10102)."""

_SPEED = 0.2
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


def sensitivity(schedule: Schedule, rungs: Sequence[Rung], goal: Goal) -> list[Bar]:
    """The bars, widest first, around the first law and the middle of what may carry over."""
    low, high = schedule.belief.rho
    rho, laws = (low + high) / 2, schedule.belief.laws
    law = next(iter(laws.values()))

    def ends(name: str, words: tuple[str, str], changed: Sequence[_Change]) -> Bar:
        values = [_at(schedule, rungs, goal, *change) for change in changed]
        return Bar(name, words, (values[0][0], values[1][0]), (values[0][1], values[1][1]))

    step = f"{_EXPONENT:g}"
    bars = [
        ends("carried over (rho)", (f"{low:.2g}", f"{high:.2g}"), [(law, low, 1, 1), (law, high, 1, 1)]),
        ends(
            "alpha of the law",
            (f"-{step}", f"+{step}"),
            [(_turned(law, alpha=sign * _EXPONENT), rho, 1, 1) for sign in (-1, 1)],
        ),
        ends(
            "beta of the law",
            (f"-{step}", f"+{step}"),
            [(_turned(law, beta=sign * _EXPONENT), rho, 1, 1) for sign in (-1, 1)],
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
    if len(laws) > 1:
        names = list(laws)[:2]
        words = names[0], names[1]
        bars.append(ends("the law", words, [(laws[name], rho, 1, 1) for name in names]))
    return sorted(bars, key=lambda bar: -bar.swing)


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
    return changed.loss(_MIDDLE, rho), gain(changed, fast, goal, _MIDDLE, rho)


def _faster(rung: Rung, factor: float) -> Rung:
    return replace(rung, tokens_per_second=rung.tokens_per_second * factor)


def _turned(law: Chinchilla, *, alpha: float = 0.0, beta: float = 0.0) -> Chinchilla:
    """The law with other exponents, the same at the middle of its data."""
    return replace(
        law,
        alpha=law.alpha + alpha,
        beta=law.beta + beta,
        A=law.A * _SIZE**alpha,
        B=law.B * _TOKENS**beta,
    )
