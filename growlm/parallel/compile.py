"""torch.compile for each block: all blocks of a model part share the graphs of the first.

The whole model is not compiled: FSDP2 and the pipeline work between blocks, and many equal blocks would be
one large graph that takes minutes. What changes during a stage reaches a block as a tensor (the masks of a
ramp), so that no step is compiled again; rotary tables are constants of the graph.
"""

from __future__ import annotations

import warnings

from growlm.model.decoder import Decoder


def compile_blocks(part: Decoder) -> None:
    """Compile every block of a model part, on its first use; after `recompute`, before sharding."""
    # torch, while it compiles, looks at the gradient of whatever goes into a block, and warns itself of that.
    warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
    with warnings.catch_warnings():  # its compiler uses what it deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        for layer in part.layers:
            part.blocks[layer].compile()
