"""GrowLM's models for transformers: after `import growlm.hf`, the Auto classes load exports of type `growlm`.

    import growlm.hf
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("EXPORTED")

The class wraps the decoder that trains, so it computes exactly the same. `generate` keeps keys and values in
transformers' own DynamicCache: beams, padding before a text and prompts in parts work as with any model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from growlm.convert.dialects import GROWLM
from growlm.model.decoder import Decoder
from growlm.model.init import init_rows
from growlm.model.parameters import family_of, parameter_table
from growlm.model.reading import Layer, Reading
from growlm.recipe.shape import ModelConfig

try:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        DynamicCache,
        GenerationMixin,
        PreTrainedConfig,
        PreTrainedModel,
    )
    from transformers.modeling_outputs import CausalLMOutputWithPast
except ImportError as error:
    raise ImportError("growlm.hf needs transformers 5: pip install 'growlm[hf]'") from error


_POSITIONS = 2048


class GrowLMConfig(PreTrainedConfig):
    """config.json of type `growlm`: the fields of ModelConfig."""

    model_type = GROWLM.model_type
    attribute_map: ClassVar = {
        "hidden_size": "d_model",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
    }

    @property
    def shape(self) -> ModelConfig:
        """The model that it describes. Raises CheckpointError."""
        return GROWLM.read_config(self.to_dict())


class GrowLMForCausalLM(PreTrainedModel, GenerationMixin):
    """The decoder under transformers' interface."""

    config_class = GrowLMConfig
    base_model_prefix = "decoder"

    def __init__(self, config: GrowLMConfig) -> None:
        super().__init__(config)
        self.decoder = Decoder(config.shape)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The module whose weight is the embedding."""
        return self.decoder.embedding

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fill the parameters of a module that were not loaded, each by its record in the table."""
        table = parameter_table(self.decoder.config)
        names = {id(parameter): name for name, parameter in self.decoder.named_parameters()}
        for parameter in module.parameters(recurse=False):
            if not getattr(parameter, "_is_hf_initialized", False):
                record = table[names[id(parameter)]]
                parameter.copy_(init_rows(record, 0, 0, parameter.shape[0]))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V) of ids (B, T), or of the last `logits_to_keep`, behind what is in a cache.

        `attention_mask` (B, S) marks the padding, 0, of the S tokens in the cache and here; without
        `position_ids` (B, T) a text's first token stands at 0. With `labels` (B, T) also the mean loss of
        the next ids. Raises ValueError for a cache other than a DynamicCache.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        padded = attention_mask is not None and bool((attention_mask.diff(dim=1) > 0).any())
        if past_key_values is None and not padded and position_ids is None:
            hidden = self.decoder(input_ids)
        else:
            if past_key_values is not None and not isinstance(past_key_values, DynamicCache):
                raise ValueError("GrowLM's class keeps a DynamicCache: leave cache_implementation out")
            reading = _reading(self.config.shape, input_ids, attention_mask, position_ids, past_key_values)
            hidden = self.decoder(input_ids, reading=reading)
        logits = self.decoder.head_logits(hidden, max(0, input_ids.shape[1] - (logits_to_keep or 1 << 62)))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)  # pyright: ignore[reportArgumentType]


def _reading(
    config: ModelConfig, ids: Tensor, mask: Tensor | None, at: Tensor | None, cache: DynamicCache | None
) -> Reading:
    """How ids (B, T) are read behind a cache, with padding where the mask (B, S) says."""
    B, T = ids.shape
    past = 0 if cache is None else cache.get_seq_length()
    if mask is None:
        mask = torch.ones(B, past + T, dtype=torch.long, device=ids.device)
    if at is None:
        at = (mask.cumsum(1) - 1).clamp(min=0)[:, -T:]
    at = at.expand(B, T)
    slots = torch.arange(past + T, device=ids.device)
    own = slots[past:, None]
    seen = (slots <= own) & (mask[:, None, None, :] > 0) | (slots == own)  # padding sees itself: no NaN
    length = _room(config, cache, int(at.max()) + 1)
    if cache is None:
        return Reading(at, length, seen)
    return _Behind(at, length, seen, past_key_values=cache)


@dataclass(frozen=True)
class _Behind(Reading):
    """Reads behind transformers' cache, where slots are the tokens of a padded row."""

    past_key_values: Any = None

    def layer(self, index: int) -> Layer:
        return _BehindLayer(self.positions, None, self.past_key_values, index)


@dataclass(frozen=True)
class _BehindLayer(Layer):
    past_key_values: Any = None
    index: int = 0

    def remember(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.past_key_values.update(k, v, self.index)


def _room(config: ModelConfig, cache: DynamicCache | None, needed: int) -> int:
    """Positions that there are, at least `needed`: for xPos, which is centred on them, the same as long as
    that is possible. Where they become more, the keys of the cache are scaled to the new centre."""
    old = getattr(cache, "growlm_positions", 0)
    length = max(_POSITIONS, 1 << (needed - 1).bit_length())
    if cache is None or length <= old:
        return old or length
    if old and family_of(config).position == "xpos":
        zeta = (torch.tensor(config.rotary_exponents, dtype=torch.float64) + 0.4) / 1.4
        factor = (zeta ** ((length // 2 - old // 2) / config.xpos_scale_base)).repeat(2)
        layers: list[Any] = cache.layers
        for layer in layers:
            layer.keys[..., : len(factor)] *= factor.to(layer.keys)
    cache.growlm_positions = length  # pyright: ignore[reportAttributeAccessIssue]
    return length


AutoConfig.register(GrowLMConfig.model_type, GrowLMConfig)
AutoModelForCausalLM.register(GrowLMConfig, GrowLMForCausalLM)
