"""A budget and a wish, as a search takes them: seconds of all GPUs, sizes to try, a batch. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from growlm.errors import RecipeError
from growlm.plan.activations import Work
from growlm.plan.growth.rungs import Rung, rungs_between
from growlm.plan.growth.search import Belief, Goal
from growlm.plan.growth.step_law import step_law_batch
from growlm.plan.run_plan import Setting
from growlm.plan.ticks import count
from growlm.scaling.laws import EPOCH, HOFFMANN, Chinchilla

LAWS: Mapping[str, Chinchilla] = {"Epoch": EPOCH, "Hoffmann": HOFFMANN}

RAMP_STEPS = 100
"""Steps over which the masks of a growth open; half of their tokens are counted as lost."""


LEAST = 0.25
"""Tokens per parameter of the smallest size wanted, if it were trained alone, below which no plan is made."""


_SHORTEST, _LONGEST, _MOST_TOKENS = 600.0, 3652.5 * 86400, 1 << 22


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent; every limit that is given holds. `tokens` alone: what one model of the smallest size
    wanted costs on so many."""

    seconds: float | None = None
    money: float | None = None
    gpu_hours: float | None = None
    tokens: float | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is searched: sizes from `low` to `high` parameters. `limit`: the part of the budget that binds."""

    setting: Setting
    goal: Goal
    belief: Belief
    work: Work
    vocab_size: int
    head_dim: int
    low: float
    high: float
    limit: str

    @property
    def price(self) -> float | None:
        """Of one GPU for an hour."""
        given = self.setting.price_per_hour
        return self.setting.gpu.price_per_hour if given is None else given

    def money(self, seconds: float) -> float | None:
        """The price of all GPUs for so long."""
        hours = self.setting.n_gpus * seconds / 3600
        return None if self.price is None else hours * self.price

    def rungs(self) -> list[Rung]:
        """The sizes to try. Raises RecipeError if none that is wanted fits into the memory."""
        found = rungs_between(
            self.low, self.high, self.setting, self.work, vocab_size=self.vocab_size, head_dim=self.head_dim
        )
        wanted = [rung for rung in found if self.goal.min_params <= rung.params <= self.goal.max_params]
        if not wanted:
            raise RecipeError(
                f"no model of {_sizes(self.goal)} fits on {self.setting.n_gpus} x {self.setting.gpu.name}",
                where="--min-params" if self.goal.min_params else "--gpus",
                why="no layout with weights, gradients, moments and activations within the memory of a GPU "
                "was found" + (f"; the largest that fits has {count(found[-1].params)}" if found else ""),
                fix="a smaller --min-params, more GPUs or GPUs with more memory",
            )
        return found


def request(
    setting: Setting,
    budget: Budget,
    *,
    min_params: float = 0.0,
    max_params: float = math.inf,
    tokens_stock: float = math.inf,
    seq_len: int = 2048,
    vocab_size: int = 65_536,
    max_stages: int = 3,
    max_growth: float = 4.0,
    laws: Mapping[str, Chinchilla] = LAWS,
    rho: tuple[float, float] = (0.0, 1.0),
) -> Request:
    """What to search for a budget. Raises RecipeError for one that cannot be met."""
    if min_params > max_params:
        raise RecipeError("--min-params is above --max-params", fix="give a range that holds a size")
    seconds, limit = _seconds(setting, budget, min_params)
    if not _SHORTEST <= seconds <= _LONGEST:
        raise RecipeError(
            f"this budget is {seconds / 86400:.3g} days of {setting.n_gpus} x {setting.gpu.name}",
            where=limit,
            why="schedules are planned for ten minutes to ten years",
            fix="give a budget in between, or another number of GPUs",
        )
    if vocab_size > _MOST_TOKENS:
        raise RecipeError(
            f"a vocabulary of {vocab_size:,} tokens", where="--vocab-size", fix=f"at most {_MOST_TOKENS:,}"
        )
    speed = (
        setting.n_gpus * setting.gpu.peak_flops * (setting.mfu[0] if setting.mfu else setting.gpu.efficiency)
    )
    flops = seconds * speed * setting.goodput
    best = [law.optimal(flops)[0] for law in laws.values()]
    least = max(min_params, min(best) / 2)
    most = min(max_params, max(1.6 * min_params, min(2 * max(best), tokens_stock)))
    least = min(least, most)
    size = min(max(sum(best) / len(best), min_params), max_params)
    tokens = min(flops / 6 / size, tokens_stock)
    if tokens < LEAST * min_params:
        raise RecipeError(
            f"the budget trains {count(min_params)} parameters on {count(tokens)} tokens: too few",
            where=limit,
            why=f"{LEAST:g} per parameter is taken for the least; 20 are usual, FLM-101B's last size alone "
            "would have had 0.8",
            fix=f"a smaller --min-params, of about {count(min(best))} for this budget, or more time",
        )
    batch = batch_for(setting, seq_len, tokens)
    goal = Goal(
        seconds=seconds,
        min_params=min_params,
        max_params=max_params,
        tokens_stock=tokens_stock,
        max_stages=max_stages,
        max_growth=max_growth,
        idle_tokens=idle_tokens(batch, seq_len),
    )
    return Request(
        setting=setting,
        goal=goal,
        belief=Belief(laws, rho),
        work=Work(seq_len=seq_len, batch_size=batch),
        vocab_size=vocab_size,
        head_dim=128 if least >= 1e9 else 64 if least >= 5e7 else 32,
        low=least / max_growth ** (max_stages - 1),
        high=most,
        limit=limit,
    )


def batch_for(setting: Setting, seq_len: int, tokens: float) -> int:
    """Sequences in a step: about Step Law's, a power of two for each GPU."""
    each = step_law_batch(tokens) / (setting.n_gpus * seq_len)
    return setting.n_gpus * 2 ** max(0, round(math.log2(each)))


def idle_tokens(batch: int, seq_len: int) -> float:
    """Tokens of a growth's ramp that are counted as lost."""
    return RAMP_STEPS / 2 * batch * seq_len


def with_seconds(asked: Request, seconds: float) -> Request:
    """The same with another budget of time."""
    return replace(asked, goal=replace(asked.goal, seconds=seconds))


def _seconds(setting: Setting, budget: Budget, min_params: float) -> tuple[float, str]:
    """The time of all GPUs that every limit allows, and which of them it is."""
    price = setting.gpu.price_per_hour if setting.price_per_hour is None else setting.price_per_hour
    limits: dict[str, float] = {}
    if budget.seconds is not None:
        limits["--days"] = budget.seconds
    if budget.gpu_hours is not None:
        limits["--gpu-hours"] = budget.gpu_hours * 3600 / setting.n_gpus
    if budget.money is not None:
        if not price:
            raise RecipeError(
                f"there is no price for {setting.gpu.name}", where="--money", fix="give one: --price 2.5"
            )
        limits["--money"] = budget.money / price * 3600 / setting.n_gpus
    if not limits and budget.tokens is not None:
        if not min_params:
            raise RecipeError(
                "a budget of tokens alone says nothing of their price",
                where="--tokens",
                fix="give --days, --money or --gpu-hours too, or --min-params: then the budget is what one "
                "model of that size costs on these tokens",
            )
        mfu = setting.mfu[0] if setting.mfu else setting.gpu.efficiency
        flops = 6 * min_params * budget.tokens
        limits["--tokens"] = flops / (setting.n_gpus * setting.gpu.peak_flops * mfu * setting.goodput)
    if not limits:
        raise RecipeError(
            "there is no budget to plan with",
            fix="give --days 14, --money 3360, --gpu-hours 1344 or --tokens 300B",
        )
    limit = min(limits, key=lambda name: limits[name])
    return limits[limit], limit


def _sizes(goal: Goal) -> str:
    parts = [f"at least {count(goal.min_params)}"] if goal.min_params else []
    parts += [f"at most {count(goal.max_params)}"] if math.isfinite(goal.max_params) else []
    return " and ".join(parts) or "any size"
