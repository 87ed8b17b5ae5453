"""litgpt: the step of its `pretrain` (Fabric, bf16-mixed, its model, loss and clipping) on random tokens.

`pretrain` compiles the model; the variant "eager" does not.
"""

from __future__ import annotations

import lightning as L  # pyright: ignore[reportMissingImports]
import torch
from litgpt.config import Config  # pyright: ignore[reportMissingImports]
from litgpt.model import GPT  # pyright: ignore[reportMissingImports]
from litgpt.pretrain import initialize_weights  # pyright: ignore[reportMissingImports]
from litgpt.utils import chunked_cross_entropy, instantiate_torch_optimizer  # pyright: ignore[reportMissingImports]

from .measure import Clock, job, random_tokens


def main() -> None:
    """Train and report."""
    j = job()
    config = Config(
        block_size=j.seq_len,
        n_layer=j.n_layers,
        n_embd=j.d_model,
        n_head=j.n_heads,
        padded_vocab_size=j.vocab_size,
        vocab_size=j.vocab_size,
        parallel_residual=False,
        rotary_percentage=1.0,
        gelu_approximate="tanh",
        attn_bias=True,
    )
    fabric = L.Fabric(devices=1, accelerator="cpu", precision="bf16-mixed")
    with fabric.init_module(empty_init=True):
        model = GPT(config)
    initialize_weights(fabric, model, n_layer=j.n_layers, n_embd=j.d_model)
    model.transformer.wte.weight = model.lm_head.weight
    model.max_seq_length = j.seq_len
    if j.variant != "eager":
        model = torch.compile(model)
    model = fabric.setup(model)
    adamw = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "betas": (0.9, 0.95)}}
    optimizer = instantiate_torch_optimizer(adamw, model.parameters(), fused=False)
    optimizer = fabric.setup_optimizers(optimizer)
    clock = Clock()
    for step in range(j.total_steps):
        tokens = random_tokens(j, step)
        loss = chunked_cross_entropy(model(tokens[:, :-1].contiguous()), tokens[:, 1:].contiguous())
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.tick(loss.item())
    clock.report(j)


if __name__ == "__main__":
    main()
