"""What a model of each size does on given GPUs: its layout, memory and tokens per second. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from growlm.model.parameters import n_parameters
from growlm.plan.activations import Work
from growlm.plan.flops import flops_per_token
from growlm.plan.growth.shapes import ladder
from growlm.plan.layout import Layout
from growlm.plan.ranking import best_layout
from growlm.plan.run_plan import Setting
from growlm.recipe.shape import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A size that fits. `tokens_per_second` is of all GPUs and of the whole time (goodput counted in)."""

    config: ModelConfig
    params: int
    flops_per_token: float
    tokens_per_second: float
    layout: Layout
    mfu: float
    memory: int


def rungs_between(
    low: float, high: float, setting: Setting, work: Work, *, vocab_size: int, head_dim: int
) -> list[Rung]:
    """All sizes of `low` to `high` parameters that have a layout within the memory, in order."""
    found = []
    for config in ladder(low, high, vocab_size=vocab_size, head_dim=head_dim):
        ranked = best_layout(config, work, setting.n_gpus, setting.gpu)
        if ranked is None:
            continue
        mfu = setting.mfu[0] if setting.mfu else ranked.step.mfu
        each = flops_per_token(config, work.seq_len)
        speed = setting.n_gpus * setting.gpu.peak_flops * mfu * setting.goodput
        found.append(
            Rung(
                config=config,
                params=n_parameters(config),
                flops_per_token=each,
                tokens_per_second=speed / each,
                layout=ranked.layout,
                mfu=mfu,
                memory=ranked.memory,
            )
        )
    return found
