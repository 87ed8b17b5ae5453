"""Checkpoints with random weights, as a run leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from growlm.checkpoint.store import CheckpointStore
from growlm.data.tokenizer import Tokenizer
from growlm.model.decoder import Decoder
from growlm.recipe.families import FAMILIES
from growlm.recipe.shape import ModelConfig
from growlm.train.state import MODEL_FILE

TEXTS = ["The river remembers the mountain. " * 20, "A lantern crosses the garden in winter. " * 20]


def small(family: str, **changes: Any) -> ModelConfig:
    """A small model; its query heads share key/value heads where the family can."""
    kv = 2 if FAMILIES[family].norm == "rms" else 4
    sizes = {"d_model": 32, "n_heads": 4, "n_kv_heads": kv, "head_dim": 8, "d_ff": 48, "n_layers": 2}
    return ModelConfig(**{"family": family, "vocab_size": 288, **sizes, **changes})


def random_decoder(config: ModelConfig) -> Decoder:
    """Every weight, bias and gain random."""
    torch.manual_seed(3)
    model = Decoder(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * 0.2 + (1.0 if "norm.weight" in name else 0.0))
    return model.eval()


def save(model: Decoder, out: Path, tokenizer: Tokenizer | None = None, **fields: Any) -> Path:
    """A checkpoint folder of the model in `out`, and beside it prepared data's tokenizer in `out/data`."""
    with CheckpointStore(out / "checkpoints", keep=2).begin(7) as pending:
        state = model.state_dict()
        writer = pending.writer(MODEL_FILE, [(n, t.dtype, tuple(t.shape)) for n, t in state.items()])
        for tensor in state.values():
            writer.write(tensor)
        counts = ("stage", "stage_step", "updates", "skipped", "train_seconds", "flops")
        empty: dict[str, Any] = dict.fromkeys(counts, 0)
        empty |= {"tokens": 1000, "mask": 1.0, "lineage": [], "births": {}, "guard": {}, "environment": {}}
        empty |= {
            "recipe_hash": "",
            "data_fingerprint": "",
            "tokenizer_hash": tokenizer.hash if tokenizer else "",
        }
        path = pending.commit(**empty | fields, model=model.config.to_dict())
    if tokenizer:
        (out / "data").mkdir()
        tokenizer.save(out / "data" / "tokenizer.json")
    return path
