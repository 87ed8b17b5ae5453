"""A tokenizer as the files that transformers' AutoTokenizer loads: same ids, special tokens declared."""

from __future__ import annotations

import json

from growlm.data.tokenizer import PAD, Tokenizer

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
_ROLES = {"pad_token": PAD, "cls_token": "[cls]", "sep_token": "[sep]"}


def tokenizer_files(tokenizer: Tokenizer, context: int | None = None) -> dict[str, bytes]:
    """File name to content; `context` is the longest text in tokens that a model takes, None is unlimited.

    There, too, special tokens spelled out in a text stay text; to write them into a prompt by name, load
    with `split_special_tokens=False`.
    """
    roles = {"bos_token": tokenizer.eos, "eos_token": tokenizer.eos}
    roles |= {role: name for role, name in _ROLES.items() if name in tokenizer.special_ids}
    settings = roles | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": [name for name in tokenizer.special_ids if name not in roles.values()],
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context or int(1e30),
    }
    return {
        TOKENIZER: tokenizer.json,
        SETTINGS: (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode(),
    }
