"""torch.compile for each block: all blocks of a model part share the graphs of the first.

The whole model is not compiled: FSDP2 and the pipeline work between blocks, and many equal blocks would be
one large graph that takes minutes. What changes during a stage reaches a block as a tensor (the masks of a
ramp), so that no step is compiled again; shapes and rotary tables are constants of the graph.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch

from growlm.model.attention import causal_bias
from growlm.model.decoder import Decoder
from growlm.model.positions import constant_tables
from growlm.plan.layout import Layout

WARNS_ITSELF = (
    "The .grad attribute of a Tensor that is not a leaf",
    ".*autograd.function.Function.* should not be instantiated",
)
"""What torch warns of and does itself when it traces a block."""


def compile_blocks(part: Decoder) -> None:
    """Compile every block of a model part, on its first use; after `recompute`, before sharding.

    Graphs of the stage before are dropped: torch stops compiling a function that it knows in many shapes.
    """
    torch.compiler.reset()
    for table in (constant_tables, causal_bias):  # here, because it imports the compiler
        torch.compiler.assume_constant_result(table)
    for message in WARNS_ITSELF:
        warnings.filterwarnings("ignore", message=message)
    with warnings.catch_warnings():  # its compiler uses what it deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        for layer in part.layers:
            part.blocks[layer].compile(dynamic=False)


def as_written(layout: Layout) -> AbstractContextManager[object]:
    """Inside, compiled blocks run as they are written: for passes of many shapes that are no training."""
    return torch.compiler.set_stance("force_eager") if layout.compile else nullcontext()
