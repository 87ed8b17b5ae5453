"""Data parallelism by FSDP2: ZeRO 0 to 3 and HSDP, one group of parameters for each block.

Parameters are kept in fp32, gathered in the compute precision for the blocks, and gradients are summed in
fp32. Embedding, final norm and head stay in fp32 when gathered: their gradients are sums over many tokens.
"""

from __future__ import annotations

from typing import cast

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from growlm.model.decoder import Decoder
from growlm.plan.layout import Layout


def shard(part: Decoder, mesh: DeviceMesh, layout: Layout, dtype: torch.dtype) -> None:
    """Shard (or only replicate) the parameters of a model part over the ranks of `mesh`, in place."""
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=torch.promote_types(dtype, torch.float32),
        cast_forward_inputs=False,
    )
    again = layout.zero == 3  # gathered for the forward pass, and again for the backward pass
    for layer in part.layers:
        fully_shard(part.blocks[layer], mesh=mesh, mp_policy=policy, reshard_after_forward=again)
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    fully_shard(part, mesh=mesh, mp_policy=plain, reshard_after_forward=False)


def before_backward(part: Decoder, layout: Layout, *, last: bool) -> None:
    """What a micro-batch's backward pass communicates; `last`: of the step.

    Up to ZeRO-2 gathered parameters are kept to the end of the step, up to ZeRO-1 gradients are summed only
    there.
    """
    module = cast(FSDPModule, part)
    module.set_requires_gradient_sync(last or layout.zero >= 2)
    module.set_reshard_after_backward(last or layout.zero == 3)
    module.set_is_last_backward(last)


def release(part: Decoder) -> None:
    """Let go of gathered parameters, after passes without a backward."""
    for module in part.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
