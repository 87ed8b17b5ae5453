"""AdamW with the parameter table's multipliers, and a clock of its own for every grown part; or Muon.

torch keeps one step count per tensor. With zero moments and the old count, new rows of a grown tensor
would take up to 6.6 times the learning rate at beta2 = 0.999 (docs/growth.md). Here the step count of an
element is the number of updates since its row, its column or its block was born, whichever is youngest. A
tensor with parts of different age is stepped part by part, by the same fused kernel, until the bias
corrections of all parts are 1 to double precision; from then on it is whole again.

Under Muon the matrices of the blocks have a momentum in place of the two moments and need no clock. The
table says how large an update is; learning rate and weight decay need no multiplier then, and a model cloned
under muP trains on exactly as before with Muon too (tests/growth/test_mup.py).

The tensors are a rank's pieces of the parameters, whole in one process. Nothing here waits for the device:
whether a step is skipped is a tensor, because to read it the host would have to let the GPU run dry, and
step counts are filled in by kernels, because a tensor made of a number is a copy that the host waits for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from growlm.growth.apply import Kind, expand_births
from growlm.model.decoder import Decoder
from growlm.model.parameters import Parameter, axis_sizes, parameter_table
from growlm.plan.pieces import Piece
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.muon import nesterov, orthogonalized

Births = dict[str, list[list[int]]]
Gather = Callable[[str, Tensor], Tensor]
"""(name, this rank's piece of a matrix) -> the whole matrix. All that hold a piece call it, in one order."""
Name = Literal["adamw", "muon"]


def state_kinds(parameter: Parameter, name: Name) -> tuple[Kind, ...]:
    """What the optimizer `name` remembers of a parameter: two moments, or the momentum of Muon alone."""
    if name == "muon" and parameter.role == "hidden":
        return ("exp_avg",)
    return ("exp_avg", "exp_avg_sq")


def stored_name(tensors: Iterable[str]) -> Name:
    """The optimizer that a saved state is of, by the names of its tensors."""
    held = set(tensors)
    second = {name.replace("exp_avg/", "exp_avg_sq/", 1) for name in held if name.startswith("exp_avg/")}
    return "adamw" if second <= held else "muon"


@dataclass(frozen=True)
class Part:
    """A block of a tensor that was born at one update; `place` is () for all of it."""

    birth: int
    place: tuple[slice, ...] = ()

    def take(self, tensor: Tensor) -> Tensor:
        """The part, contiguous: in place if it lies so (whole rows), else a copy."""
        return tensor[self.place].contiguous()

    def put(self, tensor: Tensor, values: Tensor) -> None:
        """Write a part back that `take` had to copy."""
        view = tensor[self.place]
        if view.data_ptr() != values.data_ptr():
            view.copy_(values)


class Optimizer:
    """Decoupled weight decay Adam (1711.05101), or Muon where it applies, over pieces of parameters.

    `parameters` are the local tensors, updated in place, and `pieces` which rectangles of the whole they
    are; they may be empty. Moments have the same shapes. `gather` is needed where a matrix is not whole.
    """

    def __init__(
        self,
        config: ModelConfig,
        parameters: Mapping[str, Tensor],
        pieces: Mapping[str, Piece],
        settings: OptimTable,
        births: Births,
        gather: Gather | None = None,
    ) -> None:
        self.settings, self.gather = settings, gather
        self.table = {n: p for n, p in parameter_table(config).items() if n in parameters}
        self.parameters = {n: parameters[n] for n in self.table}
        self.pieces = {n: pieces[n] for n in self.table}
        self.exp_avg, self.exp_avg_sq = (
            {n: torch.zeros_like(self.parameters[n]) for n in self.table if kind in self._kinds(n)}
            for kind in ("exp_avg", "exp_avg_sq")
        )
        slowest = max(settings.beta1, settings.beta2)
        self.mature = math.ceil(math.log(1e-17) / math.log(slowest)) if slowest > 0 else 1
        units = {axis: expand_births(births.get(axis), size) for axis, size in axis_sizes(config).items()}
        layers = expand_births(births.get("layers"), config.n_layers)
        self.parts = {n: list(_parts(p, self.pieces[n], units, layers)) for n, p in self.table.items()}

    @classmethod
    def of(cls, model: Decoder, settings: OptimTable, births: Births) -> Optimizer:
        """The optimizer of a model that one process holds whole."""
        parameters = dict(model.named_parameters())
        pieces = {n: Piece.whole(p.shape) for n, p in parameters.items()}
        return cls(model.config, parameters, pieces, settings, births)

    @torch.no_grad()
    def step(
        self,
        grads: Mapping[str, Tensor],
        lr: float,
        update: int,
        rewarm: Mapping[int, float] | None = None,
        skip: Tensor | None = None,
    ) -> None:
        """Apply update number `update` (1-based, of the whole run); `grads` are of the local shapes.

        `rewarm` maps a birth to a factor on the learning rate of the parts born then. `skip` is 0-dim, in
        fp32 and on the device: where it is 1, weights and moments keep every bit, whatever the gradients are.
        """
        for group, names in self._groups().items():
            lr_mult, wd_mult, eps_mult = group
            batch: dict[float, list[tuple[str, Part]]] = {}
            for name in names:
                for part in self._current_parts(name, update, rewarm):
                    factor = (rewarm or {}).get(part.birth, 1.0) * lr_mult
                    batch.setdefault(factor, []).append((name, part))
            for factor, items in batch.items():
                self._apply(items, grads, lr * factor, wd_mult, eps_mult, update, skip)
        for name in self.exp_avg:
            if name not in self.exp_avg_sq:
                self._apply_muon(name, grads[name], lr, rewarm, skip)

    def _kinds(self, name: str) -> tuple[Kind, ...]:
        return state_kinds(self.table[name], self.settings.name)

    def _groups(self) -> dict[tuple[float, float, float], list[str]]:
        groups: dict[tuple[float, float, float], list[str]] = {}
        for name in self.exp_avg_sq:
            p = self.table[name]
            groups.setdefault((p.lr_mult, p.wd_mult, p.eps_mult), []).append(name)
        return groups

    def _current_parts(self, name: str, update: int, rewarm: Mapping[int, float] | None) -> list[Part]:
        """The parts of a tensor, or the whole when their age no longer matters."""
        parts = self.parts[name]
        young = any(update - p.birth < self.mature for p in parts)
        if len(parts) > 1 and not young and not rewarm:
            return [Part(parts[0].birth)]
        return parts

    def _apply(
        self,
        items: list[tuple[str, Part]],
        grads: Mapping[str, Tensor],
        lr: float,
        wd_mult: float,
        eps_mult: float,
        update: int,
        skip: Tensor | None,
    ) -> None:
        ages = _ages({part.birth for _, part in items}, update, self.parameters[items[0][0]].device)
        stores = (self.parameters, self.exp_avg, self.exp_avg_sq)
        tensors = [[part.take(store[n]) for n, part in items] for store in stores]
        # Not torch.optim's function around it: that raises every count by a kernel, so none could be shared.
        torch.ops.aten._fused_adamw_(
            tensors[0],
            [part.take(grads[n]) for n, part in items],
            tensors[1],
            tensors[2],
            [],
            [ages[part.birth] for _, part in items],
            found_inf=skip,
            amsgrad=False,
            beta1=self.settings.beta1,
            beta2=self.settings.beta2,
            lr=lr,
            weight_decay=self.settings.weight_decay * wd_mult**self.settings.wd_width_exp,
            eps=self.settings.eps * eps_mult,
            maximize=False,
        )
        for k, (name, part) in enumerate(items):
            for store, values in zip(stores, tensors, strict=True):
                part.put(store[name], values[k])

    def _apply_muon(
        self,
        name: str,
        gradient: Tensor,
        lr: float,
        rewarm: Mapping[int, float] | None,
        skip: Tensor | None,
    ) -> None:
        """A piece of a matrix by Muon: orthogonal as a whole, applied by parts only where rates differ."""
        weight, p = self.parameters[name], self.table[name]
        direction = nesterov(gradient, self.exp_avg[name], self.settings.momentum, skip)
        whole = self.gather(name, direction) if self.gather else direction
        change = orthogonalized(whole)[self.pieces[name].slices]
        decay = self.settings.weight_decay * p.wd_mult ** (self.settings.wd_width_exp - 1)
        for part in self.parts[name] if rewarm else [Part(0)]:
            rate = lr * (rewarm or {}).get(part.birth, 1.0)
            old = weight[part.place]
            new = (old * (1 - rate * decay)).sub_(change[part.place], alpha=rate * p.muon)
            old.copy_(new if skip is None else torch.where(skip > 0, old, new))

    def state_dict(self) -> dict[str, Tensor]:
        """Moments under `exp_avg/<name>` and `exp_avg_sq/<name>`, Muon's momentum under the first."""
        first = {f"exp_avg/{n}": t for n, t in self.exp_avg.items()}
        return first | {f"exp_avg_sq/{n}": t for n, t in self.exp_avg_sq.items()}

    def state_pieces(self) -> dict[str, Piece]:
        """Which piece of the whole every tensor of `state_dict` is."""
        return {key: self.pieces[key.partition("/")[2]] for key in self.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state_dict`; what this optimizer does not remember is passed over."""
        for key, tensor in self.state_dict().items():
            tensor.copy_(state[key])


def _ages(births: set[int], update: int, device: torch.device) -> dict[int, Tensor]:
    """Number of updates with this one since each birth."""
    return {birth: torch.full((), float(update - birth), device=device) for birth in births}


def _parts(
    parameter: Parameter, piece: Piece, units: Mapping[str, np.ndarray], layers: np.ndarray
) -> Iterator[Part]:
    """Split a piece by the births of its rows, columns and block into as few blocks as there can be.

    An empty piece has none.
    """
    if not piece.numel:
        return
    floor = 0 if parameter.layer is None else int(layers[parameter.layer])
    cuts = zip(parameter.axes, piece.slices, strict=True)
    births = [np.maximum(units[axis][cut], floor) for axis, cut in cuts]
    if len(births) == 1:
        births.append(np.zeros(1, births[0].dtype))  # a vector is rows of one column
    for start, stop in _runs(births[0]):
        columns = np.maximum(births[1], births[0][start])
        for left, right in _runs(columns):
            rows = () if stop - start == len(births[0]) else (slice(start, stop),)
            whole_rows = right - left == len(columns)
            place = rows if whole_rows else (slice(start, stop), slice(left, right))
            yield Part(int(columns[left]), place)


def _runs(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """Start and stop of every stretch of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return pairwise(edges)
