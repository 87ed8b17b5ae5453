"""What the tests of equality run in the shared ranks: an engine over ranks beside one plain model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from growlm.model.decoder import Decoder
from growlm.model.loss import Learning
from growlm.model.masks import Ramp, Ranges
from growlm.model.parameters import parameter_table
from growlm.parallel.engine import Engine
from growlm.parallel.world import World, join
from growlm.plan.layout import Layout
from growlm.plan.pieces import Piece
from growlm.recipe.objectives import OBJECTIVES
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Births, Optimizer
from tests.model.tiny import decoder, trained

MASKS = (0.3, 0.6, 1.0)
"""The mask of a ramp in each step."""

COMPUTE = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}
WEIGHTS = {"bf16": torch.float32, "fp32": torch.float32, "fp64": torch.float64}

KINDS = ("losses", "norms", "validation", "logits", "objectives")

CLIP, LR, EPS = 0.25, 0.1, 1e-2
"""An epsilon as large as a gradient: what is wrong in one of them is as wrong in its weight."""

TOLERANCE = {"fp32": 1e-6, "fp64": 1e-12}
"""What rounding may come to in three steps: fp32 has 24 bits, fp64 53. Logits may have ten times as much."""

END = 3
"""The token that ends a document."""

BIRTH = 1
"""The update at which the young parts of a grown model were born."""


@dataclass(frozen=True)
class Training:
    """How a model trains for three steps, whatever it is laid out over.

    `grown`: in the middle of a ramp, with parts that were born later and are warmed up again. `learning`:
    each target has a weight, many of them 0, sequences have objectives, and documents are kept apart.
    `classes`: two targets are told apart from each other alone.
    """

    batch: int = 8
    length: int = 8
    optimizer: str = "adamw"
    grown: bool = False
    precision: str = "fp32"
    deterministic: bool = False
    learning: bool = False
    classes: bool = False


class Trainee(Protocol):
    """An engine, or what it must equal."""

    config: ModelConfig
    parameters: dict[str, Tensor]
    pieces: dict[str, Piece]
    group_losses: Tensor

    @property
    def grads(self) -> dict[str, Tensor]: ...
    def keep_documents_apart(self, end: int | None) -> None: ...
    def set_mask(self, ramp: Ramp | None, value: float) -> None: ...
    def sequences(self, batch_size: int) -> list[int]: ...
    def forward_backward(
        self, tokens: Tensor, targets: Tensor, learning: Learning | None = None
    ) -> tuple[Tensor, Tensor]: ...
    def zero_grad(self) -> None: ...
    def validate(self, tokens: Tensor, targets: Tensor, rows: int) -> float: ...
    def next_logits(self, tokens: Tensor) -> Tensor: ...


class Plain:
    """One model in one process: autograd, and nothing else."""

    def __init__(self, model: Decoder) -> None:
        self.model, self.config = model, model.config
        self.parameters = {name: p.detach() for name, p in model.named_parameters()}
        self.pieces = {name: Piece.whole(p.shape) for name, p in self.parameters.items()}
        self.group_losses = torch.zeros(len(OBJECTIVES), dtype=torch.float64)
        self.set_mask = model.set_mask
        self.zero_grad = model.zero_grad

    @property
    def grads(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}

    def sequences(self, batch_size: int) -> list[int]:
        return list(range(batch_size))

    def keep_documents_apart(self, end: int | None) -> None:
        self.model.document_end = end

    def forward_backward(
        self, tokens: Tensor, targets: Tensor, learning: Learning | None = None
    ) -> tuple[Tensor, Tensor]:
        loss = self._loss(tokens, targets, learning)
        loss.backward()
        squares = [grad.double().square().sum() for grad in self.grads.values()]
        return loss.detach().double(), torch.stack(squares).sum().sqrt()

    def _loss(self, tokens: Tensor, targets: Tensor, learning: Learning | None) -> Tensor:
        """From whole logits, by torch's own cross entropy."""
        logits = self.model.logits(tokens)
        if learning is not None and learning.classes is not None:
            chosen = torch.zeros(logits.shape[-1], dtype=torch.bool)
            chosen[list(learning.classes)] = True
            of_two = (chosen[targets] & (learning.weights > 0))[..., None]
            logits = logits.masked_fill(of_two & ~chosen, -torch.inf)
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        if learning is None:
            return losses.mean()
        learnt = losses.view(targets.shape) * (learning.weights > 0)
        of_rows = learnt.detach().double().sum(1)
        self.group_losses = torch.stack([of_rows[learning.group == g].sum() for g in range(len(OBJECTIVES))])
        return (losses * learning.weights.flatten().to(losses.dtype)).mean()

    @torch.no_grad()
    def validate(self, tokens: Tensor, targets: Tensor, rows: int) -> float:  # noqa: ARG002
        return self.model.loss(tokens, targets).item()

    @torch.no_grad()
    def next_logits(self, tokens: Tensor) -> Tensor:
        return self.model.next_logits(tokens)


def differences(
    config: dict[str, Any], layout: dict[str, Any], training: dict[str, Any] | None = None
) -> dict[str, float]:
    """How far this rank is from one plain model, by kind of figure, relative to the largest value there."""
    how = Training(**training or {})
    expected = _expected(json.dumps(config), how)
    with join("cpu") as world:
        engine = engine_of(ModelConfig(**config), Layout(**layout), how, world)
        found = figures(engine, how)
        weights = dict(engine.parameters)
    return _all_apart(found, weights, expected, engine.pieces)


def rounding(config: dict[str, Any], training: dict[str, Any]) -> dict[str, float]:
    """How far one plain model in bf16 is from itself in fp32."""
    found, expected = (
        _expected(json.dumps(config), Training(**training, precision=p)) for p in ("bf16", "fp32")
    )
    pieces = {name: Piece.whole(found[name].shape) for name in parameter_table(ModelConfig(**config))}
    return _all_apart({kind: found[kind] for kind in KINDS}, found, expected, pieces)


def summed_gradients(config: dict[str, Any], layout: dict[str, Any], batch: int) -> list[float]:
    """The error of this rank's gradient in bf16 of many sequences one by one, and that of a sum in bf16.

    Relative to the largest value of the sum in fp64 of the same gradients.
    """
    c, how = ModelConfig(**config), Training(batch=batch, precision="bf16")
    tokens, targets = _batch(c, batch, how.length, seed=0)
    model = decoder(c, trained(c, dtype=torch.float32))
    model.compute_dtype = torch.bfloat16
    plain = Plain(model)
    exact = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in plain.parameters.items()}
    rounded = {n: torch.zeros_like(p, dtype=torch.bfloat16) for n, p in plain.parameters.items()}
    for x, y in zip(tokens.split(1), targets.split(1), strict=True):
        plain.zero_grad()
        plain.forward_backward(x, y)
        for name, grad in plain.grads.items():
            exact[name] += grad.double() / batch
            rounded[name] += grad.bfloat16() / batch
    with join("cpu") as world:
        engine = engine_of(c, Layout(**layout), how, world)
        rows = engine.sequences(batch)
        engine.forward_backward(tokens[rows], targets[rows])
        grads, pieces = engine.grads, engine.pieces
        found = [_apart(grads[n], exact[n][p.slices], exact[n]) for n, p in pieces.items() if ".weight" in n]
    return [max(found), max(_apart(rounded[n], exact[n], exact[n]) for n in pieces if "_proj.weight" in n)]


def engine_of(config: ModelConfig, layout: Layout, how: Training, world: World) -> Engine:
    """An engine with the weights that every case starts from."""
    micro_batches = how.batch // (layout.dp * layout.micro_batch)
    dtype, deterministic = COMPUTE[how.precision], how.deterministic
    with _default(WEIGHTS[how.precision]):
        place = (config, layout, world.rank, world.device)
        engine = Engine(*place, dtype, micro_batches, deterministic=deterministic)
    weights = trained(config, dtype=WEIGHTS[how.precision])
    engine.fill(lambda name, piece: weights[name][piece.slices])
    return engine


def figures(trainee: Trainee, how: Training) -> dict[str, Tensor]:
    """Losses, gradient norms, a validation loss and the next logits of three steps, which train it."""
    config, ramp = trainee.config, ramp_of(trainee.config) if how.grown else None
    gather = trainee.gather if isinstance(trainee, Engine) else None
    settings = OptimTable(name=how.optimizer, lr=LR, eps=EPS)  # type: ignore[arg-type]
    births = births_of(config) if how.grown else {}
    optimizer = Optimizer(config, trainee.parameters, trainee.pieces, settings, births, gather)
    trainee.keep_documents_apart(END if how.learning else None)
    losses, norms, objectives = [], [], []
    for step, mask in enumerate(MASKS):
        trainee.set_mask(ramp, mask)
        rows = trainee.sequences(how.batch)
        tokens, targets = _batch(config, how.batch, how.length, seed=step)
        with _default(WEIGHTS[how.precision]):
            learning = _learning(how, targets, seed=step) if how.learning else None
            mine = learning.rows(torch.tensor(rows)) if learning else None
            loss, norm = trainee.forward_backward(tokens[rows], targets[rows], mine)
        factor = (CLIP / (norm + 1e-6)).clamp(max=1.0)
        grads = {name: grad * factor.to(grad.dtype) for name, grad in trainee.grads.items()}
        optimizer.step(grads, LR, BIRTH + 1 + step, {BIRTH: 0.5} if how.grown else None, torch.zeros(()))
        trainee.zero_grad()
        losses.append(loss)
        norms.append(norm)
        objectives.append(trainee.group_losses)
    trainee.set_mask(ramp, MASKS[0])
    valid = trainee.validate(*_batch(config, 5, how.length, seed=9), rows=2)
    logits = [trainee.next_logits(_batch(config, 1, length, seed=9)[0]) for length in (1, how.length - 1)]
    return {
        "losses": torch.stack(losses),
        "norms": torch.stack(norms),
        "validation": torch.tensor(valid, dtype=torch.float64),
        "logits": torch.stack(logits),
        "objectives": torch.stack(objectives) + (0 if how.learning else 1),  # they are compared by their size
    }


def ramp_of(config: ModelConfig) -> Ramp:
    """New units on every axis, the last quarter of each, and the last layer."""
    E = config.head_dim
    new = {"d_model": config.d_model, "ffn": config.d_ff, "vocab": config.vocab_size}
    axes: dict[str, Ranges] = {axis: ((size - size // 4, size),) for axis, size in new.items()}
    axes["q"] = (((config.n_heads - 1) * E, config.n_heads * E),)
    axes["score"] = tuple((head * E + E - 1, head * E + E) for head in range(config.n_heads))
    return Ramp(10, axes, (config.n_layers - 1,) if config.n_layers else ())


def births_of(config: ModelConfig) -> Births:
    """When the units were born that are new in `ramp_of`."""
    ramp = ramp_of(config)
    births = {axis: [[*run, BIRTH] for run in ramp.axes[axis]] for axis in ("d_model", "q", "ffn", "vocab")}
    return births | {"layers": [[layer, layer + 1, BIRTH] for layer in ramp.layers]}


@cache
def _expected(config: str, how: Training) -> dict[str, Tensor]:
    """The figures of one plain model, and its weights after them."""
    c = ModelConfig(**json.loads(config))
    model = decoder(c, trained(c, dtype=WEIGHTS[how.precision]))
    model.compute_dtype = COMPUTE[how.precision]
    plain = Plain(model)
    return figures(plain, how) | plain.parameters


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """The precision of what is made without one: parameters, and sums of losses."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _batch(config: ModelConfig, rows: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets, (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, config.vocab_size, (rows, length + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def _learning(how: Training, targets: Tensor, seed: int) -> Learning:
    """Half of the targets count nothing, the others by their sequence's objective, on average 1."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, len(OBJECTIVES), (len(targets),), generator=generator)
    weights = torch.rand(targets.shape, generator=generator).round() * (1 + group)[:, None]
    weights /= weights.mean()
    return Learning(weights, group, (END, END + 1) if how.classes else None)


def _all_apart(
    found: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    pieces: Mapping[str, Piece],
) -> dict[str, float]:
    of_weights = [_apart(weights[n], expected[n][p.slices], expected[n]) for n, p in pieces.items()]
    apart = {kind: _apart(found[kind], expected[kind], expected[kind]) for kind in KINDS}
    return apart | {"weights": max(of_weights, default=0.0)}


def _apart(found: Tensor, expected: Tensor, scale: Tensor) -> float:
    """The largest difference over the largest value of `scale`; infinite where one has another shape."""
    if found.shape != expected.shape:
        return float("inf")
    if not found.numel():
        return 0.0
    apart = (found.double() - expected.double()).abs().max() / scale.double().abs().max()
    return apart.nan_to_num(float("inf")).item()
