"""Bytes that the forward pass keeps for the backward pass, from the shape and the layout alone. No torch.

Counted as Korthikanti et al. (2205.05198, equations 1 to 4) do, for what this decoder keeps: no dropout, and
attention in one kernel that keeps no scores. With n tokens, D, Q, K and F the sizes of the stream, queries,
keys and the MLP, over t tensor-parallel ranks, a block keeps in the compute dtype

    none        n (4 D + (2 Q + 2 K + m F) / t)     m = 2 for GELU, 4 gated, 1 for ReLU: 16 n D for a GPT
    selective   n (D + (2 Q + K + F) / t)           its input, attention, every second product; gated n D more
    full        n D                                 its input

Under sequence parallelism what norms read is 1/t. They count the inputs of the split layers so as well,
and gather them again in the backward pass; here they are kept whole. On a CPU torch keeps more: scores of
short contexts, and of an RMSNorm what it reads and what it makes of that in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

from growlm.model.parameters import family_of
from growlm.plan.layout import Layout, Recompute
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig

CPU_SCORES = 512
"""Longest context of which attention keeps its scores on a CPU (model/attention.py)."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage asks of its ranks. `compute_bytes` is the size of an element in the compute dtype."""

    seq_len: int
    batch_size: int
    compute_bytes: int = 2
    muon: bool = False
    cpu: bool = False

    @classmethod
    def of(cls, recipe: Recipe, stage: int) -> Work:
        """That of a stage; a device that is `auto` is taken for a GPU."""
        return cls(
            seq_len=recipe.stages[stage].seq_len,
            batch_size=recipe.stages[stage].batch_size,
            compute_bytes=2 if recipe.train.precision == "bf16" else 4,
            muon=recipe.optim.name == "muon",
            cpu=recipe.train.device == "cpu",
        )

    def micro_batches(self, layout: Layout) -> int:
        """Micro-batches of a rank in one step."""
        return self.batch_size // (layout.dp * layout.micro_batch)


def recomputed(layout: Layout, run: range) -> int:
    """How many blocks of a model part the backward pass makes again."""
    return 0 if layout.recompute == "none" else len(run[:: layout.recompute_every])


def stream_bytes(config: ModelConfig, layout: Layout, work: Work) -> int:
    """The residual stream of one micro-batch on one rank."""
    whole = layout.micro_batch * work.seq_len * config.d_model * work.compute_bytes
    return whole // layout.tp if layout.sequence_parallel else whole


def in_flight(layout: Layout, work: Work, pp: int) -> float:
    """Micro-batches whose activations pipeline rank `pp` holds at once, in units of all its blocks.

    1F1B: one for every stage from here to the end. Interleaved (Narayanan et al. 2104.04473, section 2.2):
    the warm-up of 2 (pp - rank - 1) + (interleave - 1) pp runs and one more, each 1 / interleave of a rank's
    blocks; on rank 0 that is 1 + (pp - 1) / (pp interleave) times as much as 1F1B.
    """
    micro_batches = work.micro_batches(layout)
    if layout.interleave == 1:
        return min(layout.pp - pp, micro_batches)
    runs = 2 * (layout.pp - pp - 1) + (layout.interleave - 1) * layout.pp + 1
    return min(runs, micro_batches * layout.interleave) / layout.interleave


def kept_bytes(config: ModelConfig, layout: Layout, work: Work, pp: int) -> int:
    """What a pipeline rank keeps when it keeps most: of its blocks, and at the ends of the model.

    At the last block: the final norm's input, and the gradients that the loss forms in the forward pass.
    """
    flights, tokens = in_flight(layout, work, pp), layout.micro_batch * work.seq_len
    runs, stream = layout.parts(config, pp), stream_bytes(config, layout, work)
    whole = block_bytes(config, layout, work, recompute="none")
    cut = block_bytes(config, layout, work, recompute=layout.recompute)
    again = sum(recomputed(layout, run) for run in runs)
    blocks = again * cut + (sum(map(len, runs)) - again) * whole
    kept = flights * blocks + _boundaries(layout, work, pp, flights) * stream
    if pp == 0:
        kept += 8 * tokens * flights
    if pp == layout.pp - 1:
        kept += _normed(config, work) * stream + tokens * config.d_model * work.compute_bytes
        kept += 4 * config.vocab_size * config.d_model // layout.tp
    return round(kept)


def _boundaries(layout: Layout, work: Work, pp: int, flights: float) -> float:
    """Streams kept where parts meet, by torch.distributed.pipelining: a buffer for everything that a part
    receives in a step, forward and backward, in which its first input lies; and what it has sent."""
    if layout.pp == 1:
        return 0.0
    before = layout.interleave - (pp == 0)
    behind = layout.interleave - (pp == layout.pp - 1)
    buffers = work.micro_batches(layout) * (before + behind)
    return buffers + flights * (behind - before) / layout.interleave


def block_bytes(config: ModelConfig, layout: Layout, work: Work, *, recompute: Recompute) -> int:
    """What one block keeps of one micro-batch."""
    n, t, c = layout.micro_batch * work.seq_len, layout.tp, work.compute_bytes
    family, stream = family_of(config), stream_bytes(config, layout, work)
    if recompute == "full":
        return stream
    names = [slot.name.rsplit(".", 2)[-2] for slot in family.slots]
    wide, gated, normed = n * config.d_model * c, "gate_proj" in names, "q_norm" in names
    queries, keys = (n * heads * config.head_dim * c // t for heads in (config.n_heads, config.n_kv_heads))
    hidden = n * config.d_ff * c // t
    statistics = 4 * n * config.n_heads // t
    if recompute == "selective":
        return stream + 2 * queries + keys + hidden + gated * wide + statistics
    if work.cpu and work.seq_len <= CPU_SCORES:
        statistics = n * config.n_heads * work.seq_len * c // t
    kept = 4 if gated else 1 if family.activation == "relu" else 2
    norms = (1 if family.parallel else 2) * stream + normed * (queries + keys)
    heads = 2 * (queries + keys) + statistics
    return _normed(config, work) * norms + 2 * wide + heads + kept * hidden


def _normed(config: ModelConfig, work: Work) -> int:
    """How often a norm keeps what it reads."""
    return 8 // work.compute_bytes if work.cpu and family_of(config).norm == "rms" else 1
