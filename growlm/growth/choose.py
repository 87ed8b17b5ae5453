"""Which certificate a growth gets: the strongest that fits into memory, or the one that is asked for."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from growlm.growth.certify import certify
from growlm.growth.fusion import FusedWeights, certify_fusion
from growlm.growth.operators import Growth
from growlm.growth.sampled import certify_sampled
from growlm.growth.streaming import certify_streaming
from growlm.growth.weights import Weights
from growlm.model.parameters import n_parameters, parameter_table
from growlm.plan.memory import memory_bytes

CertificateKind = Literal["auto", "full", "streaming", "sampled"]

FULL_CAP = 4 << 30

Batch = tuple[Tensor, Tensor]
"""Tokens and targets, each (B, T)."""


def certify_as(
    kind: CertificateKind, growth: Growth, old: Weights, new: Weights, batch: Batch
) -> dict[str, Any]:
    """The certificate of that kind, as plain JSON types; `kind` in it says which was made.

    `auto` is the strongest that is `affordable`. That of a fused model also compares it with its parents.
    """
    if kind == "auto":
        kind = affordable(growth)
    if kind == "sampled":
        return certify_sampled(growth, old, new)
    if kind == "streaming":
        certificate = certify_streaming(growth, old, new, *batch)
    else:
        before, after = ({n: w.read(n) for n in parameter_table(w.config)} for w in (old, new))
        certificate = certify(growth, before, after, *batch)
    fused = {"fusion": certify_fusion(old, *batch)} if isinstance(old, FusedWeights) else {}
    return certificate | fused


def full_bytes(growth: Growth) -> int:
    """Memory of a full certificate: weights as stored, then weights, gradients and their rule in fp64."""
    return 28 * (n_parameters(growth.old) + n_parameters(growth.new))


def affordable(growth: Growth) -> Literal["full", "streaming", "sampled"]:
    """The strongest certificate that takes at most a third of the free memory; `full` at most 4 GiB.

    `full` holds both models with their gradients, `streaming` two blocks, in fp64 where fp32 is not enough.
    """
    free = memory_bytes()[1] // 3
    if full_bytes(growth) <= min(free, FULL_CAP):
        return "full"
    block = sum(p.numel for p in parameter_table(growth.new).values() if p.layer == 0)
    return "streaming" if 16 * block <= free else "sampled"
