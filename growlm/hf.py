"""GrowLM's models for transformers: after `import growlm.hf`, the Auto classes load exports of type `growlm`.

    import growlm.hf
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained("EXPORTED")

The class wraps the decoder that trains, so it computes exactly the same; keys and values are not cached.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from growlm.convert.dialects import GROWLM
from growlm.model.decoder import Decoder
from growlm.model.init import init_rows
from growlm.model.parameters import parameter_table
from growlm.recipe.shape import ModelConfig

try:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        GenerationMixin,
        PreTrainedConfig,
        PreTrainedModel,
    )
    from transformers.modeling_outputs import CausalLMOutput
except ImportError as error:
    raise ImportError("growlm.hf needs transformers 5: pip install 'growlm[hf]'") from error


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
        labels: Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutput:
        """Logits (B, T, V) of ids (B, T), and the mean loss of the next ids if `labels` (B, T) are given.

        Raises ValueError for padding before the text, which the decoder would take for text.
        """
        if attention_mask is not None and (attention_mask.diff(dim=1) > 0).any():
            raise ValueError("GrowLM's decoder has no padding before the text: pad on the right")
        logits = self.decoder.logits(input_ids)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)  # pyright: ignore[reportArgumentType]

    def prepare_inputs_for_generation(self, input_ids: Tensor, *_: Any, **kwargs: Any) -> dict[str, Any]:
        """The whole text so far: there is no cache."""
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask")}


AutoConfig.register(GrowLMConfig.model_type, GrowLMConfig)
AutoModelForCausalLM.register(GrowLMConfig, GrowLMForCausalLM)
