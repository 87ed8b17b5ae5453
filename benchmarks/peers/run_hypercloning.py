"""HyperCloning (2409.12903) as one writes it over transformers objects: load, build, copy, save.

    python benchmarks/peers/run_hypercloning.py SOURCE OUT

A restatement of the published method for Llama: every width doubled, matrices tiled and halved, gains tiled,
the head halved through the final norm (tied) so that logits stay. Prints seconds and peak memory as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


@torch.no_grad()
def clone(small: Any) -> Any:
    """The model with every width doubled and the same logits."""
    c = small.config
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    config = LlamaConfig(**(c.to_dict() | {size: 2 * getattr(c, size) for size in sizes}))
    large: Any = LlamaForCausalLM(config)
    large = large.to(small.dtype)
    modules: dict[str, Any] = dict(large.named_modules())
    for name, module in small.named_modules():
        target = modules[name]
        if name == "lm_head":
            continue  # tied to the embedding
        if isinstance(module, nn.Linear):
            target.weight.copy_(module.weight.repeat(2, 2) / 2)
        elif isinstance(module, nn.Embedding):
            target.weight.copy_(module.weight.repeat(1, 2))
        elif hasattr(module, "weight"):
            target.weight.copy_(module.weight.repeat(2) / (2 if name == "model.norm" else 1))
    return large


def main() -> None:
    """Clone the folder named first into the one named second."""
    started = time.perf_counter()
    small = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
    clone(small).save_pretrained(sys.argv[2], max_shard_size="5GB")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


if __name__ == "__main__":
    main()
