"""Training in memory with GrowLM's optimizer, for the tests of growth."""

from __future__ import annotations

import torch

from growlm.growth.apply import Kind
from growlm.growth.operators import Growth
from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from growlm.train.optimizer import Optimizer, state_kinds, stored_name
from tests.growth.tools import grown
from tests.model.tiny import State, batch


def train(model: Decoder, optimizer: Optimizer, updates: range, *, data: int | None = None) -> list[float]:
    """The loss of each update, at the recipe's learning rate; on one batch for ever if `data` names it."""
    losses = []
    for update in updates:
        model.zero_grad()
        loss = model.loss(*batch(model.config, seed=update if data is None else data))
        loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        optimizer.step(grads, optimizer.settings.lr, update)
        losses.append(loss.item())
    return losses


def grown_state(growth: Growth, state: State) -> State:
    """An optimizer's state, grown."""
    new: State = {}
    kinds: tuple[Kind, ...] = ("exp_avg", "exp_avg_sq")
    missing = {n: torch.zeros(p.shape, dtype=torch.float64) for n, p in parameter_table(growth.old).items()}
    for kind in kinds:
        held = {n.removeprefix(f"{kind}/"): m for n, m in state.items() if n.startswith(f"{kind}/")}
        moments = grown(growth, missing | held, kind)
        for name, p in parameter_table(growth.new).items():
            if kind in state_kinds(p, stored_name(state)):
                new[f"{kind}/{name}"] = moments[name]
    return new
