"""Models of transformers in memory: their weights, and a model of the same class with others.

The model brings its classes along, so transformers itself is not imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from growlm.convert.dialect import ForeignTensor
from growlm.convert.dialects import dialect_of
from growlm.convert.folding import folded, foldings
from growlm.errors import CheckpointError
from growlm.growth.weights import MemoryWeights
from growlm.recipe.shape import ModelConfig


def is_model(model: Any) -> bool:
    """Whether this has what every transformers model has."""
    return hasattr(model, "state_dict") and hasattr(getattr(model, "config", None), "to_dict")


def weights_of(model: Any) -> MemoryWeights:
    """The weights of a causal language model under GrowLM's names, on the CPU.

    Raises CheckpointError if it is of a kind that GrowLM does not know, or has no head.
    """
    keys = model.config.to_dict()
    dialect = dialect_of(keys)
    config = dialect.read_config(keys)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors = {_name_in(model, tensor): tensor for tensor in dialect.tensors(config)}
    missing = [tensor.name for name, tensor in tensors.items() if name not in state]
    if missing:
        raise CheckpointError(
            f"{type(model).__name__} is not a whole language model",
            why=f"it has no {missing[0]}",
            fix="load it with AutoModelForCausalLM",
        )
    parts = {}
    for name, tensor in tensors.items():
        for part in tensor.parts:
            parts[part] = state[name] if tensor.unpack is None else tensor.unpack(state[name], part)
    return MemoryWeights(config, parts)


def model_like(model: Any, config: ModelConfig, state: Mapping[str, Tensor]) -> Any:
    """A new model of the class of `model` with other sizes and weights, on its device and in its dtype.

    Multipliers that the class does not have are folded into the weights. Raises CheckpointError if they
    cannot be, or the class cannot express the config.
    """
    keys = model.config.to_dict()
    dialect = dialect_of(keys)
    stored, factors = folded(config, dialect), foldings(config, dialect, model.dtype)
    new = type(model)(type(model.config).from_dict(keys | dialect.write_config(stored)))
    new.to(model.device, model.dtype)
    foreign = {}
    for tensor in dialect.tensors(stored):
        parts = [state[part] * factors[part] if part in factors else state[part] for part in tensor.parts]
        foreign[_name_in(new, tensor)] = parts[0] if tensor.pack is None else tensor.pack(parts)
    assert {name for name, _ in new.named_parameters()} == set(foreign)  # a tied head and buffers are not
    new.load_state_dict(foreign, strict=False)
    new.generation_config = deepcopy(model.generation_config)
    return new.train(model.training)


@torch.no_grad()
def largest_change(old: Any, new: Any, tokens: Tensor) -> float:
    """Largest difference of the logits of two models on tokens (B, T), both in evaluation mode."""
    modes = [model.training for model in (old, new)]
    was, now = (model.eval()(tokens.to(model.device)).logits for model in (old, new))
    for model, training in zip((old, new), modes, strict=True):
        model.train(training)
    return (now[..., : was.shape[-1]] - was).abs().max().item()


def _name_in(model: Any, tensor: ForeignTensor) -> str:
    """The name of a tensor in memory; only the head may have another one than in files (GPT-NeoX)."""
    if tensor.parts != ("lm_head.weight",):
        return tensor.name
    head = model.get_output_embeddings()
    return next((f"{name}.weight" for name, module in model.named_modules() if module is head), tensor.name)
