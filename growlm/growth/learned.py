"""LiGO (2303.00980): growth by linear maps that are learned, with the language-model loss, in some steps.

    W'_l = B_out (sum_j w_lj W_j) B_in^T          B = [I; C]

Old units stay (I), every new unit is a mixture of old ones by a row of C, every block a mixture w_l of old
blocks. Embeddings, gains and biases go through B too. C belongs to an axis and is shared by all tensors on
it; w belongs to a slot of the table. Heads are mixed whole, as kv groups and as queries of a group, so
rotary pairs keep their frequencies; new tokens and positions are initialised by the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice

import torch
from torch import Tensor, nn
from torch.func import functional_call

from growlm.errors import GrowthError
from growlm.growth.operators import Growth
from growlm.growth.weights import Weights
from growlm.model.decoder import Decoder
from growlm.model.init import init_rows
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

NOISE = 0.03  # on the stack pattern that the mixtures of blocks start from
LEARNING_RATE = 3e-3
MICRO_TOKENS = 1 << 13  # that go through the model at a time

State = dict[str, Tensor]


@dataclass(frozen=True)
class Expansion:
    """What is learned.

    `units`: C (new - old, old) of `d_model`, `groups` (kv heads), `queries` (of a group) and `ffn`.
    `blocks`: w (new layers, old layers) of every slot, by the name that the slot has in block 0.
    """

    units: Mapping[str, Tensor]
    blocks: Mapping[str, Tensor]

    @classmethod
    def initial(cls, growth: Growth, like: Tensor) -> Expansion:
        """C uniform, w a stack with noise, rows of both summing to 1; without new blocks w is the identity.

        `like` has the dtype and the device to be.
        """
        generator, dtype = torch.Generator().manual_seed(growth.seed), like.dtype
        after, units = _units(growth.new), {}
        for axis, old in _units(growth.old).items():
            rows = torch.rand(after[axis] - old, old, generator=generator, dtype=dtype)
            units[axis] = (rows / rows.sum(1, keepdim=True)).to(like).requires_grad_()
        old, new = growth.old.n_layers, growth.new.n_layers
        blocks = {}
        for slot in (p.name for p in parameter_table(growth.new).values() if p.layer == 0):
            mix = torch.eye(old, dtype=dtype)[torch.arange(new) % max(old, 1)]
            if new > old:
                mix += NOISE * torch.randn(new, old, generator=generator, dtype=dtype)
                mix /= mix.sum(1, keepdim=True)
            blocks[slot] = mix.to(like).requires_grad_(new > old)
        return cls(units, blocks)

    def parameters(self) -> list[Tensor]:
        """The tensors that learn."""
        return [t for t in (*self.units.values(), *self.blocks.values()) if t.requires_grad]

    def matrices(self, head_dim: int) -> State:
        """B (new, old) of every axis that is mixed."""
        B = {axis: torch.cat([torch.eye(C.shape[1]).to(C), C]) for axis, C in self.units.items()}
        head = torch.eye(head_dim).to(B["groups"])
        return {
            "d_model": B["d_model"],
            "ffn": B["ffn"],
            "kv": torch.kron(B["groups"], head),
            "q": torch.kron(torch.kron(B["groups"], B["queries"]), head),
        }


def expand(growth: Growth, old: Mapping[str, Tensor], expansion: Expansion) -> State:
    """The grown weights, differentiable in the expansion; `old` as `stacked` gives it."""
    B = expansion.matrices(growth.old.head_dim)
    grown = {}
    for name, p in parameter_table(growth.new).items():
        if p.layer is None:
            tensor = old[name]
        else:
            tensor = torch.tensordot(expansion.blocks[p.at_layer(0)][p.layer], old[p.at_layer(0)], 1)
        for dim, axis in enumerate(p.axes):
            if axis in B:
                tensor = (tensor.movedim(dim, -1) @ B[axis].T).movedim(-1, dim)
        if len(tensor) < p.shape[0]:  # tokens or positions
            tensor = torch.cat([tensor, init_rows(p, growth.seed, len(tensor), p.shape[0]).to(tensor)])
        grown[name] = tensor
    return grown


def stacked(weights: Weights) -> State:
    """All tensors, in fp32 or wider; those of the blocks as one (layers, ...) under the name in block 0."""
    tensors: State = {}
    for name, p in parameter_table(weights.config).items():
        if p.layer is None:
            tensors[name] = _wide(weights.read(name))
        elif p.layer == 0:
            layers = [_wide(weights.read(p.at_layer(i))) for i in range(weights.config.n_layers)]
            tensors[name] = torch.stack(layers)
    return tensors


def with_learned(growth: Growth, old: Weights, batches: Iterable[tuple[Tensor, Tensor]] | None) -> Growth:
    """The growth with the weights that `learn` finds, if it is one by `ligo`; any other as it is.

    Raises GrowthError if there is nothing to learn from.
    """
    if growth.table.operator != "ligo":
        return growth
    if batches is None:
        raise GrowthError(
            "operator ligo has nothing to learn from",
            where="growth.operator",
            why=f"it learns its maps in {growth.table.learn_steps} steps on text",
            fix="name prepared data: --data FOLDER",
        )
    return replace(growth, learned=learn(growth, old, batches))


def learn(growth: Growth, old: Weights, batches: Iterable[tuple[Tensor, Tensor]]) -> State:
    """Weights of `growth.new`, by an expansion learned with AdamW in `growth.table.learn_steps` steps.

    `batches` are tokens and targets, each (B, T), of one device, where this is computed. The result is on the
    CPU, in fp32 or wider.
    """
    batches = iter(batches)
    first = next(batches)
    sources = {name: tensor.to(first[0].device) for name, tensor in stacked(old).items()}
    expansion = Expansion.initial(growth, sources["embedding.weight"])
    optimizer = torch.optim.AdamW(expansion.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    objective = _Loss(growth).to(first[0].device)
    for tokens, targets in islice(chain([first], batches), growth.table.learn_steps):
        sequences = max(1, MICRO_TOKENS // tokens.shape[1])
        for x, y in zip(tokens.split(sequences), targets.split(sequences), strict=True):
            state = {f"model.{name}": t for name, t in expand(growth, sources, expansion).items()}
            (functional_call(objective, state, (x, y)) * (len(x) / len(tokens))).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return {name: tensor.cpu() for name, tensor in expand(growth, sources, expansion).items()}


class _Loss(nn.Module):
    """The loss of a model of the grown shape as the first step of its ramp sees it."""

    def __init__(self, growth: Growth) -> None:
        super().__init__()
        self.model, self.growth = Decoder(growth.new), growth

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats of targets (B, T) given tokens (B, T)."""
        self.model.set_mask(self.growth.ramp, self.growth.ramp.value(1))
        return self.model.loss(tokens, targets)


def _units(config: ModelConfig) -> dict[str, int]:
    return {
        "d_model": config.d_model,
        "groups": config.n_kv_heads,
        "queries": config.queries_per_kv,
        "ffn": config.d_ff,
    }


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
