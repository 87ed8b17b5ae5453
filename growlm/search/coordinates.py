"""How large the outputs of a model's layers are in its first steps: what the coordinate check looks at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from growlm.model.decoder import Attention, Block, Decoder
from growlm.model.parameters import family_of, parameter_table
from growlm.model.positions import apply_rotary
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Optimizer

KINDS = ("embedding", "scores", "attention", "mlp", "stream", "norm", "logits")
"""Whose outputs are looked at: `scores` go into the softmax of attention, `attention` and `mlp` are branches
before their multiplier, `stream` is the residual stream behind the last block, `norm` the final one."""

READOUT = 1 / 64
"""What the readout starts at, as a share of its initial values (see `coordinates`)."""

BATCH, LENGTH = 4, 8
"""Sequences, and tokens of each, in the one batch of every step. The gradient of a matrix is a sum over
tokens: a width is wide only beside their number."""


@dataclass(frozen=True)
class Steps:
    """The steps of a check: how many, at which learning rate (that of the base shape), by which optimizer."""

    count: int
    lr: float
    optim: OptimTable


def coordinates(config: ModelConfig, seed: int, steps: Steps, writers: float) -> NDArray[np.float64]:
    """(2, steps, kinds): mean |x| before each update, and mean |x - what it was before the first|.

    Over one batch of random tokens, which is also what is trained on; of a block that is the one in the
    middle, which a model of any depth has. Tokens are drawn by Zipf's law, as those of text: so all have a
    part of the gradient in common, and learning is more than noise.

    What random weights make of random vectors can fall away in large models and, as long as it has not,
    hides what is learned, which must not: the logits of a random readout fall as 1/sqrt(width) under muP,
    the sum of random branches as 1/sqrt(layers) under CompleteP. So the readout starts small (a tied one is
    made up for in the multiplier of the input), and residual writers at `writers` times what they would.
    """
    if config.tied:
        config = config.with_(input_mult=config.input_mult / READOUT)
    model = Decoder(config).init_weights(seed)
    table = parameter_table(config)
    with torch.no_grad():
        model.head.mul_(READOUT)
        for name, tensor in model.named_parameters():
            if table[name].writes_residual and table[name].layer is not None:
                tensor.mul_(writers)
    optimizer = Optimizer.of(model, steps.optim, {})
    tokens, targets = _batch(config.vocab_size, seed)
    found, first = np.zeros((2, steps.count, len(KINDS))), None
    for step in range(steps.count):
        outputs = _train(model, optimizer, tokens, targets, steps.lr, step + 1)
        first = first or outputs
        for k, kind in enumerate(KINDS):
            found[0, step, k] = outputs[kind].abs().mean().item()
            found[1, step, k] = (outputs[kind] - first[kind]).abs().mean().item()
    return found


def _batch(vocabulary: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets, (BATCH, LENGTH), the probability of a token in proportion to 1/(1 + its number)."""
    generator = torch.Generator().manual_seed(seed)
    chances = 1 / torch.arange(1, vocabulary + 1, dtype=torch.float64)
    drawn = torch.multinomial(chances, BATCH * (LENGTH + 1), replacement=True, generator=generator)
    tokens = drawn.view(BATCH, LENGTH + 1)
    return tokens[:, :-1], tokens[:, 1:]


def _train(
    model: Decoder, optimizer: Optimizer, tokens: Tensor, targets: Tensor, lr: float, update: int
) -> dict[str, Tensor]:
    """One update; the outputs before it, by kind."""
    outputs: dict[str, Tensor] = {}
    middle, last = model.blocks[len(model.blocks) // 2], model.blocks[-1]
    assert isinstance(middle, Block)

    def keep(kind: str, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[kind] = output.detach()

    def keep_scores(module: Attention, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        outputs["scores"] = _scores(module, inputs[0])

    layers = {"attention": middle.attn, "mlp": middle.mlp, "stream": last, "norm": model.norm}
    hooks = [layer.register_forward_hook(partial(keep, kind)) for kind, layer in layers.items()]
    hooks.append(middle.attn.register_forward_hook(keep_scores))
    hidden = model(tokens)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        outputs |= {"embedding": model.embed(tokens), "logits": model.head_logits(hidden)}
    model.zero_grad()
    model.head_loss(hidden, targets)[0].backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step(grads, lr, update)
    return outputs


@torch.no_grad()
def _scores(attention: Attention, x: Tensor) -> Tensor:
    """What the softmax of attention is given where it may look, (B, H, T (T + 1) / 2), for x (B, T, D)."""
    config = attention.config
    q, k = (layer(x).unflatten(-1, (-1, config.head_dim)) for layer in (attention.q_proj, attention.k_proj))
    if attention.q_norm is not None and attention.k_norm is not None:
        q, k = attention.q_norm(q, None), attention.k_norm(k, None)
    q, k = apply_rotary(q.transpose(1, 2), k.transpose(1, 2), config, family_of(config))
    k = k.repeat_interleave(config.queries_per_kv, dim=1)
    scores = q @ k.transpose(-1, -2) * (config.attn_mult / math.sqrt(config.head_dim))
    return scores[..., torch.ones(scores.shape[-2:], dtype=torch.bool).tril()]
