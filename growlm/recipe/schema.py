"""The recipe: every field of a run, typed, with its meaning. The field docs become docs/recipe.md."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from growlm.recipe.objectives import ObjectivesTable
from growlm.recipe.operators import NOISY, RESETS, Depth, Width
from growlm.recipe.running import (
    BudgetTable,
    CheckpointTable,
    EvalTable,
    GuardTable,
    Table,
    TimeoutsTable,
    TrainTable,
)
from growlm.recipe.shape import ModelConfig


class ModelTable(Table):
    """What stays the same through every stage of the run."""

    family: str = Field(description="`flm`, `llama`, `qwen2`, `qwen3`, `gpt2`, `neox` or `opt`.")
    head_dim: int = Field(gt=0, le=65536, description="Size of one attention head.")
    vocab_size: int = Field(gt=0, description="Rows of the embedding; at least the tokenizer's size.")
    tied: bool = Field(True, description="Share the embedding with the output head.")
    norm_eps: float = Field(1e-5, gt=0, description="Epsilon of LayerNorm or RMSNorm.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary frequencies.")
    rotary_share: float = Field(
        1.0, gt=0, le=1, description="Share of each head that rotary positions turn; 0.25 in GPT-NeoX."
    )
    xpos_scale_base: float = Field(512.0, gt=0, description="xPos scale base in positions (`flm`).")
    max_positions: int | None = Field(
        None, gt=0, description="Positions to learn; `gpt2` and `opt` need it, the others ignore it."
    )
    init_std: float = Field(0.02, gt=0, description="Standard deviation of new weights.")
    input_mult: float = Field(1.0, description="Multiplier on the embedding's output.")
    output_mult: float = Field(1.0, description="Multiplier on the logits (softmax temperature).")
    parametrization: Literal["sp", "mup", "completep"] = Field(
        "completep",
        description="Whether learning rate, weight decay, epsilon and initialisation follow the size: not at "
        "all, with the width, or with width and depth. At the base shape all three are the same.",
    )
    mup_base_d_model: int | None = Field(
        None, gt=0, description="Width of the base shape; unset means the first stage's."
    )
    mup_base_hidden: list[float] | None = Field(
        None,
        min_length=3,
        max_length=3,
        description="Queries, keys (heads times head_dim) and feed-forward units of the base shape; unset "
        "means the first stage's, in proportion to the base width.",
    )
    mup_base_n_layers: int | None = Field(
        None, gt=0, description="completep: layers of the base shape; unset means the first stage's."
    )


class GrowthTable(Table):
    """How a stage's first weights are made from the last weights of the stage before it."""

    operator: Width = Field("masked", description="How width (d_model, heads, head_dim, ffn) grows.")
    depth: Depth = Field("zero_block", description="How layers are added.")
    layer_source: Literal["interpolate", "stack", "random"] = Field(
        "interpolate",
        description="depth masked, zero_block: new blocks copy the one before, copy the stack, or are fresh.",
    )
    ramp_steps: int = Field(
        100, ge=0, description="Steps over which masks (and new tokens of a grown vocabulary) go 0 -> 1."
    )
    noise: float | None = Field(
        None,
        ge=0,
        description="Paired noise on readers of copies, as a share of each weight (0.1 is an SNR of 20 dB); "
        "unset means 0.1 for `clone`, `net2net` and `aki`, else 0.",
    )
    split: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the first copy of a unit, 0.5 is even; unset means 0.3 for `lemon`, else 0.5.",
    )
    shrink: float = Field(0.4, gt=0, le=1, description="shrink_perturb: factor on the old weights.")
    perturb: float = Field(
        1.0, ge=0, description="shrink_perturb: factor on the fresh weights added to them."
    )
    learn_steps: int = Field(100, gt=0, description="ligo: steps that learn the expansion.")
    moments: Literal["grow", "asymmetric", "reset"] | None = Field(
        None,
        description="Optimizer state: transformed with the weights, the same but zero for copies, or zero; "
        "unset means `asymmetric` for `rms`, `reset` for `shrink_perturb` and `ligo`, else `grow`.",
    )
    rewarm_steps: int = Field(0, ge=0, description="Warm-up of the learning rate for the new part only.")
    rewarm_peak: float = Field(
        1.0,
        ge=1,
        description="Factor on the new part's learning rate after its warm-up. 1 warms up from 0; more warms "
        "up from 1 and falls back to 1 by a cosine at the stage's end.",
    )
    force: bool = Field(False, description="Grow even if copies can never part ways.")
    certify: Literal["fp32", "fp64"] = Field("fp32", description="Precision of the growth certificate.")

    @property
    def effective_noise(self) -> float:
        """`noise`, or the operator's own."""
        return (0.1 if self.operator in NOISY else 0.0) if self.noise is None else self.noise

    @property
    def effective_split(self) -> float:
        """`split`, or the operator's own."""
        return (0.3 if self.operator == "lemon" else 0.5) if self.split is None else self.split

    @property
    def effective_moments(self) -> Literal["grow", "asymmetric", "reset"]:
        """`moments`, or the operator's own."""
        if self.moments is not None:
            return self.moments
        return "asymmetric" if self.operator == "rms" else "reset" if self.operator in RESETS else "grow"


class LayoutTable(Table):
    """A stage over several processes: data, tensor and pipeline parallel. It changes speed and memory, never
    what is trained. What is unset is chosen when the run starts; `layout = "auto"` leaves it all unset."""

    dp: int | None = Field(None, gt=0, description="Data parallel: ranks that share a step's sequences.")
    tp: int | None = Field(
        None, gt=0, description="Tensor parallel: ranks that share every matrix; keep them in one machine."
    )
    pp: int | None = Field(None, gt=0, description="Pipeline parallel: ranks that share the blocks.")
    zero: int | None = Field(
        None,
        ge=0,
        le=3,
        description="What data-parallel ranks share out: 0 nothing, 1 optimizer state, 2 gradients too, "
        "3 weights too.",
    )
    replicas: int = Field(
        1, gt=0, description="Copies within dp; each is shared out over dp / replicas ranks (HSDP)."
    )
    interleave: int = Field(1, gt=0, description="Runs of blocks per pipeline rank (interleaved 1F1B).")
    sequence_parallel: bool | None = Field(
        None, description="Split norms and the residual stream along time over tp; unset means if tp > 1."
    )
    recompute: Literal["none", "selective", "full"] = Field(
        "none",
        description="What the backward pass makes again: nothing, all but attention and every second matrix "
        "product, or whole blocks.",
    )
    recompute_every: int = Field(1, gt=0, description="Of every so many blocks, the first recomputes.")
    compile: bool = Field(False, description="Compile every block with torch.compile.")


def _no_choices(value: Any) -> Any:
    return {} if value == "auto" else value


class StageTable(Table):
    """One stage: a shape, how much it trains, and how it came from the stage before."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Short name, unique in the run.")
    d_model: int = Field(gt=0, description="Residual width.")
    n_heads: int = Field(gt=0, description="Query heads.")
    n_kv_heads: int | None = Field(None, gt=0, description="Key/value heads; unset means `n_heads`.")
    d_ff: int = Field(gt=0, description="Hidden units of the feed-forward layer.")
    head_dim: int | None = Field(None, gt=0, le=65536, description="Overrides `model.head_dim` from here on.")
    n_layers: int = Field(ge=0, description="Blocks; 0 is embedding, final norm and head alone.")
    vocab_size: int | None = Field(None, gt=0, description="Overrides `model.vocab_size` from here on.")
    tokens: int | None = Field(
        None,
        gt=0,
        description="Tokens to train in this stage, rounded up to whole steps; left out of every stage, they "
        "are shares of `schedule.total_tokens`.",
    )
    seq_len: int = Field(gt=0, description="Context length in tokens.")
    batch_size: int = Field(gt=0, description="Sequences in one optimizer step.")
    micro_batch_size: int | None = Field(
        None, gt=0, description="Sequences per forward pass; unset means the whole batch."
    )
    lr: float | None = Field(None, gt=0, description="Peak learning rate; unset means `optim.lr`.")
    lr_policy: Literal["continue", "rewarm", "rewind"] = Field(
        "continue",
        description="At the stage's start: go on along the schedule, warm up again to it, or restart it.",
    )
    mixture: dict[str, float] | None = Field(None, description="Overrides `data.mixture` from here on.")
    objectives: Literal["unified", "alternating"] = Field(
        "unified",
        description="Whether a step mixes the sources of all objectives, or they take turns, step by step.",
    )
    growth: GrowthTable | None = Field(None, description="Growth into this stage; unset means defaults.")
    layout: Annotated[
        LayoutTable, BeforeValidator(_no_choices, json_schema_input_type=LayoutTable | Literal["auto"])
    ] = Field(
        LayoutTable(),  # pyright: ignore[reportCallIssue]
        description='How it is spread over processes; "auto", or unset, means chosen at the start.',
    )

    @property
    def steps(self) -> int:
        """Optimizer steps of the stage."""
        return -(-(self.tokens or 0) // self.tokens_per_step)

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step."""
        return self.batch_size * self.seq_len


class DataTable(Table):
    """Where the tokens are and in which proportions they are drawn."""

    path: str = Field(description="Folder written by `growlm data prepare`.")
    mixture: dict[str, float] = Field(
        min_length=1, description="Weight of each source; they need not sum to 1."
    )
    document_mask: bool = Field(
        False, description="Keep the documents of a sequence apart: attention sees only its own."
    )
    exhausted: Literal["repeat", "stop"] = Field(
        "repeat",
        description="A source that has less text than the run draws: go round it, with its epochs on record, "
        "or refuse to start.",
    )


class OptimTable(Table):
    """AdamW, or Muon for the matrices of the blocks and AdamW for everything else."""

    name: Literal["adamw", "muon"] = Field("adamw", description="What updates the matrices of the blocks.")
    lr: float = Field(gt=0, description="Peak learning rate.")
    momentum: float = Field(0.95, ge=0, lt=1, description="muon: decay of the momentum.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the first moment.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the second moment.")
    eps: float = Field(1e-8, gt=0, description="Added to the root of the second moment.")
    weight_decay: float = Field(
        0.1, ge=0, description="Decoupled decay of matrices; never of gains and biases."
    )
    wd_width_exp: float = Field(
        1.0,
        ge=0,
        description="mup, completep: decay grows as the width to this power; at 1 learning rate times decay "
        "is the same at every width, 0.5 is what 2510.15262 finds best.",
    )
    grad_clip: float = Field(1.0, gt=0, description="Largest global gradient norm.")


class ScheduleTable(Table):
    """The learning rate over the whole run, in steps since the run's start or its last rewind."""

    kind: Literal["wsd", "cosine", "linear"] = Field("wsd", description="Shape after the warm-up.")
    warmup_steps: int = Field(100, ge=0, description="Linear warm-up; also of a `rewarm`.")
    decay_share: float = Field(0.2, ge=0, le=1, description="wsd: last share of the steps that decays.")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Final learning rate over the peak.")
    total_tokens: int | None = Field(
        None, gt=0, description="Tokens of all stages together, for stages that leave out `tokens`."
    )
    prop_alpha: float = Field(
        1.0, ge=0, description="Share of stage i, from 1: proportional to i^prop_alpha (MIDAS, 2409.19044)."
    )


class Recipe(Table):
    """A run, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the run.")
    seed: int = Field(1, ge=0, description="Seeds initialisation, data order and growth.")
    init: str | None = Field(
        None,
        description="Run folder, checkpoint or Hugging Face folder that the first stage starts from.",
    )
    model: ModelTable
    data: DataTable
    objectives: ObjectivesTable = ObjectivesTable()  # pyright: ignore[reportCallIssue]
    optim: OptimTable
    schedule: ScheduleTable = ScheduleTable()  # pyright: ignore[reportCallIssue]
    guard: GuardTable = GuardTable()  # pyright: ignore[reportCallIssue]
    eval: EvalTable = EvalTable()  # pyright: ignore[reportCallIssue]
    checkpoint: CheckpointTable = CheckpointTable()  # pyright: ignore[reportCallIssue]
    train: TrainTable = TrainTable()  # pyright: ignore[reportCallIssue]
    timeouts: TimeoutsTable = TimeoutsTable()  # pyright: ignore[reportCallIssue]
    budget: BudgetTable = BudgetTable()  # pyright: ignore[reportCallIssue]
    stages: list[StageTable] = Field(min_length=1, description="The stages, in order.")

    @model_validator(mode="after")
    def _share_tokens(self) -> Self:
        """Fill in the tokens of stages that all leave them out; unset they stay, for the file to say so."""
        if all(stage.tokens is None for stage in self.stages):
            for stage, tokens in zip(self.stages, self.token_shares(), strict=False):
                object.__setattr__(stage, "tokens", tokens)
        return self

    def token_shares(self) -> list[int]:
        """Tokens of each stage by `schedule.total_tokens`: T_i ~ i^alpha (2409.19044, section 3), in whole
        steps, so that every stage ends within a step of its share; empty without a total."""
        total = self.schedule.total_tokens
        if total is None:
            return []
        weights = [i**self.schedule.prop_alpha for i in range(1, len(self.stages) + 1)]
        shares: list[int] = []
        for stage, end in zip(self.stages, accumulate(weights), strict=True):
            missing = total * end / sum(weights) - sum(shares)
            shares.append(max(1, round(missing / stage.tokens_per_step)) * stage.tokens_per_step)
        return shares

    def model_config_of(self, index: int) -> ModelConfig:
        """The model of stage `index` as the recipe states it (before carried constants)."""
        stage = self.stages[index]
        vocab = next(
            (s.vocab_size for s in reversed(self.stages[: index + 1]) if s.vocab_size), self.model.vocab_size
        )
        m, base = self.model, self.base_shape()
        width = stage.d_model / base["mup_base_d_model"] if base else 1.0
        return ModelConfig(
            family=m.family,
            d_model=stage.d_model,
            n_heads=stage.n_heads,
            n_kv_heads=stage.n_kv_heads or stage.n_heads,
            head_dim=self.head_dim_of(index),
            d_ff=stage.d_ff,
            n_layers=stage.n_layers,
            vocab_size=vocab,
            tied=m.tied,
            rope_theta=m.rope_theta,
            rotary_share=m.rotary_share,
            xpos_scale_base=m.xpos_scale_base,
            max_positions=m.max_positions,
            init_std=m.init_std,
            norm_eps=m.norm_eps,
            input_mult=m.input_mult,
            logit_mult=m.output_mult / width,
            **base,
        )

    def base_shape(self) -> dict[str, Any]:
        """The `mup_base_*` of every stage's model; none of them under `sp`.

        Where of the widths only d_model is given, the others of the first stage shrink with it.
        """
        m, first = self.model, self.stages[0]
        if m.parametrization == "sp":
            return {}
        d_model = m.mup_base_d_model or first.d_model
        heads = (first.n_heads, first.n_kv_heads or first.n_heads)
        hidden = (*(n * self.head_dim_of(0) for n in heads), first.d_ff)
        base = {
            "mup_base_d_model": d_model,
            "mup_base_hidden": tuple(m.mup_base_hidden or (n * d_model / first.d_model for n in hidden)),
        }
        if m.parametrization == "completep":
            base["mup_base_n_layers"] = m.mup_base_n_layers or max(1, first.n_layers)
        return base

    def head_dim_of(self, index: int) -> int:
        """Size of one attention head in stage `index`."""
        return next(
            (s.head_dim for s in reversed(self.stages[: index + 1]) if s.head_dim), self.model.head_dim
        )

    def mixture_of(self, index: int) -> dict[str, float]:
        """Source weights of stage `index`."""
        return next((s.mixture for s in reversed(self.stages[: index + 1]) if s.mixture), self.data.mixture)

    def growth_of(self, index: int) -> GrowthTable:
        """Growth settings into stage `index` (its own or the defaults)."""
        return self.stages[index].growth or GrowthTable()  # pyright: ignore[reportCallIssue]
