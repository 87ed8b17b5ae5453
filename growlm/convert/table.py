"""A dialect as data, and the one mechanism that reads and writes all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from growlm.convert.config_keys import (
    Json,
    context,
    count,
    flag,
    number,
    read_multipliers,
    read_rope,
    refuse,
    require,
    write_multipliers,
    write_rope,
)
from growlm.convert.dialect import Dialect, ForeignTensor
from growlm.convert.layouts import Layout
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

Row = tuple[str, Sequence[str], Layout | None]
"""A foreign name, the parameters in it, and how they are packed (None: plain); `{i}` is the layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """One dialect. Rows whose parameters the model does not have (biases, a tied head) drop out.

    `keys`: field of ModelConfig -> its key; head_dim and n_kv_heads may lack one and follow from the others.
    `repeats`: further keys that must say the same as a field. `fixed`: key -> values with which it is this
    model, a missing key meaning the first; the first is written. `resets`: more keys to write.
    `rope`: keys of the base and of the rotated share, and the share where that is missing.
    `window`: whether sliding windows are on where config.json does not say; None if there are none.
    `whole_heads`: transformers refuses a width that the heads do not divide, whatever head_dim says.
    `mup`: it has input_mult, output_mult and mup_scale_factor.
    """

    name: str
    model_type: str
    family: str
    architecture: str
    keys: Mapping[str, str]
    rows: Sequence[Row]
    repeats: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    resets: Mapping[str, Any] = field(default_factory=dict)
    rope: tuple[str, str | None, float] | None = ("rope_theta", None, 1.0)
    window: bool | None = None
    whole_heads: bool = False
    mup: bool = False
    tied: bool = False
    eps: float = 1e-5
    native: bool = True
    prefix: str = "model."
    ignored: str = r".*\.rotary_emb\.inv_freq"

    def dialect(self) -> Dialect:
        """The table at work."""
        return Dialect(
            name=self.name,
            model_type=self.model_type,
            family=self.family,
            native=self.native,
            prefix=self.prefix,
            ignored=self.ignored,
            keys=self.keys,
            read_config=partial(_read, self),
            write_config=partial(_write, self),
            tensors=partial(_tensors, self),
        )


def _read(table: Table, config: Json) -> ModelConfig:
    """The model that a config.json describes. Raises CheckpointError."""
    keys = table.keys
    for key, allowed in table.fixed.items():
        require(config, key, allowed)
    d_model, n_heads = count(config, keys["d_model"]), count(config, keys["n_heads"])
    head_dim = count(config, keys.get("head_dim", ""), d_model // n_heads or 1)
    if d_model % n_heads and (table.whole_heads or config.get(keys.get("head_dim", "")) is None):
        raise refuse(keys["n_heads"], f"{n_heads} heads do not divide a width of {d_model}")
    fields: dict[str, Any] = read_rope(config, *table.rope) if table.rope else {}
    if table.mup:
        fields |= read_multipliers(config, d_model)
    model = ModelConfig(
        family=table.family,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=count(config, keys.get("n_kv_heads", ""), n_heads),
        head_dim=head_dim,
        d_ff=count(config, keys["d_ff"], 4 * d_model if keys["d_ff"] == "n_inner" else None),
        n_layers=count(config, keys["n_layers"]),
        vocab_size=count(config, keys["vocab_size"]),
        tied=flag(config, keys["tied"], table.tied),
        norm_eps=number(config, keys.get("norm_eps", ""), table.eps),
        init_std=number(config, keys["init_std"], 0.02),
        max_positions=context(config, keys["max_positions"], table.window),
        **fields,
    )
    _check(table, config, model)
    return model


def _check(table: Table, config: Json, model: ModelConfig) -> None:
    """Raise CheckpointError for sizes that are missing or contradict each other."""
    if not table.rope:
        count(config, table.keys["max_positions"])
    for key, name in table.repeats.items():
        require(config, key, [getattr(model, name)])
    if model.n_heads % model.n_kv_heads:
        key = table.keys["n_kv_heads"]
        raise refuse(key, f"{model.n_heads} query heads cannot share {model.n_kv_heads} key/value heads")
    pairs = model.head_dim * model.rotary_share / 2
    if table.rope and (pairs != int(pairs) or not 0 < pairs <= model.head_dim // 2):
        raise refuse(
            table.rope[1] or "head_dim",
            f"a share of {model.rotary_share} of heads of {model.head_dim} is no whole number of pairs",
        )


def _write(table: Table, config: ModelConfig) -> dict[str, Any]:
    """What config.json says of a model, for this dialect. What it has no key for is left out."""
    out: dict[str, Any] = {"architectures": [table.architecture], "model_type": table.model_type}
    named = [*table.keys.items(), *((name, key) for key, name in table.repeats.items())]
    out |= {key: getattr(config, name) for name, key in named if getattr(config, name) is not None}
    out |= {key: allowed[0] for key, allowed in table.fixed.items()} | dict(table.resets)
    if table.rope:
        out |= write_rope(config, *table.rope[:2])
    if table.mup:
        out |= write_multipliers(config)
    return out


@lru_cache(maxsize=32)
def _tensors(table: Table, config: ModelConfig) -> list[ForeignTensor]:
    """Every tensor of a folder, in the order of the forward pass."""
    first = next(k for k, row in enumerate(table.rows) if "{i}" in row[0])
    block = [row for row in table.rows if "{i}" in row[0]]
    order: list[tuple[Row, int]] = [(row, 0) for row in table.rows[:first]]
    order += [(row, layer) for layer in range(config.n_layers) for row in block]
    order += [(row, 0) for row in table.rows[first + len(block) :]]
    return [tensor for row, layer in order if (tensor := _tensor(row, layer, config)) is not None]


def _tensor(row: Row, layer: int, config: ModelConfig) -> ForeignTensor | None:
    """The tensor of a row in a layer; None if the model has no such parameters."""
    name, layout = row[0].format(i=layer), row[2]
    parts = tuple(part.format(i=layer) for part in row[1])
    parameters = parameter_table(config)
    if parts[0] not in parameters:
        return None
    shapes = [parameters[part].shape for part in parts]
    if layout is None:
        return ForeignTensor(name, shapes[0], parts)

    def pack(tensors: Sequence[Tensor]) -> Tensor:
        return layout.pack(tensors, config).contiguous()

    def unpack(whole: Tensor, part: str) -> Tensor:
        return layout.unpack(whole, [shape[0] for shape in shapes], config)[parts.index(part)].contiguous()

    shape = pack([torch.empty(shape, device="meta") for shape in shapes]).shape
    return ForeignTensor(name, tuple(shape), parts, pack, unpack)
