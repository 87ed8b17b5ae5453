"""Growth from Python: `growlm.grow(model, "width=2x,depth=1.5x")`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor

from growlm.convert.folder import is_folder_of_weights
from growlm.convert.grow import refuse_masks
from growlm.convert.model import is_model, largest_change, model_like, weights_of
from growlm.errors import GrowthError, RecipeError
from growlm.growth.apply import grow_rows
from growlm.growth.certify import require
from growlm.growth.choose import certify_as
from growlm.growth.operators import Growth
from growlm.growth.prepare import prepare_growth
from growlm.growth.weights import MemoryWeights
from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig
from growlm.recipe.sizes import growth_table, parse_sizes
from growlm.train.initial import foreign_model
from growlm.train.restore import find_checkpoint, masked_model

Sizes = str | Mapping[str, int | str] | ModelConfig
Batches = Iterable[tuple[Tensor, Tensor]]
Model = TypeVar("Model")


@overload
def grow(model: str | Path, to: Sizes, **settings: Any) -> tuple[Decoder, dict[str, Any]]: ...


@overload
def grow(model: Model, to: Sizes, **settings: Any) -> tuple[Model, dict[str, Any]]: ...


def grow(
    model: Any,
    to: Sizes,
    *,
    operator: str = "clone",
    depth: str = "zero_block",
    tokens: Tensor | None = None,
    batches: Batches | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[Any, dict[str, Any]]:
    """Grow a model in memory: a new model of the same kind, and its certificate (docs/growth.md).

    Args:
        model: a GrowLM `Decoder`; a run, checkpoint or Hugging Face folder, which gives a `Decoder`; or a
            causal language model of transformers, which gives one of the same class.
        to: new sizes as on the command line, "width=2x,n_layers=45", the same as a mapping, or a config.
        operator, depth, settings: the fields of [stages.growth] in a recipe (docs/recipe.md).
        tokens: ids (B, T) of text for the certificate, random ones without.
        batches: for operator "ligo", the (tokens, targets), each (B, T), that it learns from.
        seed: of everything that is drawn.

    Raises GrowthError, RecipeError or CheckpointError for what cannot be done; `model` is never changed.
    """
    table = growth_table({"operator": operator, "depth": depth, **settings})
    if isinstance(model, str | Path):
        model = _load(Path(model))
    old = _weights(model)
    ids = _random_ids(old.config, seed) if tokens is None else tokens.cpu()
    target = to if isinstance(to, ModelConfig) else parse_sizes(to, old.config)
    growth = prepare_growth(old, target, table, seed=seed, tokens=ids, batches=batches, has_state=False)
    if not isinstance(model, Decoder):
        refuse_masks(growth)
    state = {
        name: grow_rows(growth, parameter, "weight", 0, parameter.shape[0], old.read)
        for name, parameter in parameter_table(growth.new).items()
    }
    new = MemoryWeights(growth.new, state)
    certificate = certify_as("auto", growth, old, new, (ids[:, :-1], ids[:, 1:]))
    require(certificate)
    if isinstance(model, Decoder):
        return _decoder_like(model, growth, state), certificate
    grown = model_like(model, growth.new, state)
    moved = largest_change(model, grown, ids)
    return grown, certificate | {"transformers": {"max_dlogit": moved}}


def _load(path: Path) -> Decoder:
    """The model of a run, a checkpoint (masked as it was in training) or a Hugging Face folder, in fp32."""
    return foreign_model(path) if is_folder_of_weights(path) else masked_model(find_checkpoint(path))


def _weights(model: Any) -> MemoryWeights:
    """The weights of a model in memory. Raises GrowthError or RecipeError for one that cannot be grown."""
    if not isinstance(model, Decoder):
        if not is_model(model):
            raise RecipeError(
                f"a {type(model).__name__} cannot be grown",
                fix="give a Decoder, a path, or a causal language model of transformers",
            )
        return weights_of(model)
    if model.masks is not None:
        raise GrowthError(
            f"this model is inside a mask ramp (mask {model.masks.value:.2f})",
            why="growing it would let its new units in at once",
            fix="train to the end of the ramp first",
        )
    return MemoryWeights(model.config, {n: t.detach().cpu() for n, t in model.state_dict().items()})


def _decoder_like(model: Decoder, growth: Growth, state: Mapping[str, Tensor]) -> Decoder:
    """The grown decoder, on the device of the old one, behind the mask that the growth begins with."""
    with torch.device("meta"):
        grown = Decoder(growth.new)
    grown.load_state_dict(dict(state), assign=True)
    grown.to(model.head.device).set_mask(growth.ramp, growth.ramp.value(0))
    grown.compute_dtype = model.compute_dtype
    return grown


def _random_ids(config: ModelConfig, seed: int) -> Tensor:
    length = min(128, config.max_positions or 128)
    return torch.randint(0, config.vocab_size, (4, length), generator=torch.Generator().manual_seed(seed))
