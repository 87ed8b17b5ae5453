"""The tables of a recipe that say how a run is kept and watched, not what it trains."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Table(BaseModel):
    """A TOML table: unknown keys are errors, values are not coerced silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GuardTable(Table):
    """When a step is not applied."""

    spike_sigmas: float = Field(
        8.0, gt=0, description="Skip a step whose loss or gradient norm is this many robust sigmas too high."
    )
    spike_patience: int = Field(
        3, ge=0, description="Spikes skipped in a row before such a step is applied, clipped, after all."
    )
    window: int = Field(128, ge=16, description="Accepted steps that the median and MAD look back over.")
    grace_steps: int = Field(50, ge=0, description="Steps after a start or growth without the spike guard.")
    max_skips_in_row: int = Field(
        10, gt=0, description="Stop the run after this many skipped steps in a row."
    )


class EvalTable(Table):
    """What is measured and shown while training."""

    every_tokens: int = Field(
        1_000_000, gt=0, description="Validate and sample each time this many tokens pass."
    )
    tokens: int = Field(65_536, gt=0, description="Validation tokens per source, always the same ones.")
    prompts: list[str] = Field(
        default_factory=list, description="Fixed prompts to continue at every validation."
    )
    sample_tokens: int = Field(48, ge=0, description="Tokens sampled for each prompt.")
    tasks: list[str] = Field(
        default_factory=list,
        description="Tasks to measure: of the IQ suite (`counting`, `rules`, ...) or knowledge benchmarks "
        "(`hellaswag`, ...), docs/evaluation.md. Trials of a search measure none.",
    )
    tasks_every_tokens: int | None = Field(
        None, gt=0, description="Measure them each time this many tokens pass; always at a stage's end."
    )
    task_items: int = Field(100, gt=0, description="Items of each task, always the same ones.")
    task_data: str | None = Field(
        None, description="Folder with the data of knowledge benchmarks and symbolic mapping."
    )


class CheckpointTable(Table):
    """When the run is saved and what is kept."""

    every_seconds: float = Field(300.0, gt=0, description="Seconds of training between saves.")
    every_steps: int | None = Field(None, gt=0, description="Also save whenever this many steps have passed.")
    keep: int = Field(3, ge=2, description="Newest checkpoints to keep, beside both sides of every growth.")


class TrainTable(Table):
    """The machine."""

    precision: Literal["bf16", "fp32"] = Field("bf16", description="Compute precision; weights are fp32.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train.")
    threads: int | None = Field(
        None, gt=0, description="CPU threads; unset means all cores. Part of the bits."
    )
    deterministic: bool = Field(
        False,
        description="Bit-identical losses and weights for any number of data-parallel ranks: micro-batches "
        "are summed in a fixed tree.",
    )


class TimeoutsTable(Table):
    """Seconds that all ranks wait for each other. One that takes longer is taken for frozen: the stacks of
    all are written and the run restarts from the last checkpoint."""

    setup: float = Field(600.0, gt=0, description="Joining, building the model and loading its weights.")
    step: float = Field(1800.0, gt=0, description="One training step; the first one compiles.")
    save: float = Field(1800.0, gt=0, description="One checkpoint, or a growth.")
    eval: float = Field(1800.0, gt=0, description="One validation with its samples; a batch of `eval.tasks`.")


class BudgetTable(Table):
    """Money, for the terminal line and the report."""

    price_per_hour: float | None = Field(None, ge=0, description="Price of all machines of the run per hour.")
    currency: str = Field("USD", description="Unit of the price.")
    max_cost: float | None = Field(None, gt=0, description="Save and stop (exit 79) at this cost.")
