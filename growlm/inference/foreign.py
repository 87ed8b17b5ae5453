"""Any causal language model of transformers, in its own code: what GrowLM has no table for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from growlm.convert.companions import GENERATION
from growlm.data.extra import extra
from growlm.data.tokenizer_files import SETTINGS, TOKENIZER
from growlm.errors import CheckpointError
from growlm.inference.asking import Asking
from growlm.inference.generate import Known, Wanted, Written
from growlm.inference.halving import in_halves
from growlm.inference.score import Asked, Found
from growlm.inference.text import Stream, Text

BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}
"""Read together, padding included; all of them go through the head."""
ROWS = {"cpu": 16, "cuda": 64}


class Foreign(Asking):
    """A model of transformers with its tokenizer; a `Model`."""

    def __init__(self, model: Any, text: Text, *, context: int, identity: str) -> None:
        super().__init__(text, context=context, identity=identity)
        self.model, self._known = model.eval().requires_grad_(False), Known(text)
        self.rows = ROWS[model.device.type]

    def score(self, asked: Sequence[Asked]) -> Iterator[tuple[int, Found]]:
        """How likely ids are, in padded batches; what differs in the last token only is read once."""
        same: dict[tuple[int, ...], list[int]] = {}
        for index, one in enumerate(asked):
            same.setdefault(tuple(one.ids[:-1]), []).append(index)
        order = sorted(same.items(), key=lambda item: -len(item[0]))

        def read(part: Sequence[tuple[tuple[int, ...], list[int]]]) -> Iterator[tuple[int, Found]]:
            logits = self._logits([inputs for inputs, _ in part])
            for row, (inputs, indices) in zip(logits, part, strict=True):
                for index in indices:
                    yield index, _found(row[: len(inputs)], asked[index])

        start = 0
        while start < len(order):
            rows = max(1, BATCH_TOKENS[self.model.device.type] // len(order[start][0]))
            yield from in_halves(read, order[start : start + rows])
            start += rows

    @torch.inference_mode()
    def _logits(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits (B, T, V) of sequences, padded at their ends."""
        longest = max(map(len, rows))
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        device = self.model.device
        return self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits

    @torch.inference_mode()
    def write(self, batch: Sequence[Wanted]) -> list[Written]:
        """Go on with texts by transformers' `generate`, which pads them at their beginnings."""
        rows = [Written(wanted, Stream(self.text)) for wanted in batch]
        longest = max(len(w.ids) for w in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, wanted in enumerate(batch):
            ids[i, longest - len(wanted.ids) :] = torch.tensor(wanted.ids)
            mask[i, longest - len(wanted.ids) :] = 1
        device = self.model.device

        def choose(_: Tensor, scores: Tensor) -> Tensor:
            """Leave each text only the token that it draws."""
            chosen = torch.full_like(scores, -torch.inf)
            for i, row in enumerate(rows):
                if row.finish is None:
                    chosen[i, row.wanted.draw(self._known.of(scores[i]))] = 0
                else:
                    chosen[i, 0] = 0
            return chosen

        def ended(so_far: Tensor, _: Tensor, **__: Any) -> Tensor:
            for row, token in zip(rows, so_far[:, -1].tolist(), strict=True):
                if row.finish is None:
                    row.take(token, self.text.ends)
            return torch.tensor([row.finish is not None for row in rows], device=device)

        self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            logits_processor=[choose],
            stopping_criteria=[ended],
            generation_config=_plain(max(w.max_tokens for w in batch)),
        )
        return rows


def load_foreign(path: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Text, int]:
    """A model of transformers, its tokenizer and its context. Raises CheckpointError, or DataError with the
    line that installs transformers."""
    transformers: Any = extra("transformers", path, "hf")
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            path, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
        files = _tokenizer_files(tokenizer, model)
    except Exception as error:  # whatever a foreign folder can make transformers raise
        raise CheckpointError(
            "transformers cannot load this model",
            where=str(path),
            why=str(error).strip().partition("\n")[0],
            fix="give a whole folder of a causal language model that transformers knows, in safetensors",
        ) from error
    sizes = (
        getattr(model.config, name, None) for name in ("n_positions", "max_position_embeddings", "n_ctx")
    )
    context = next((size for size in sizes if size), 2048)
    return model.to(device), Text(files, str(path)), context


def _tokenizer_files(tokenizer: Any, model: Any) -> dict[str, bytes]:
    """A tokenizer of transformers as the files that `Text` reads."""
    settings = {f"{role}_token": getattr(tokenizer, f"{role}_token") for role in ("bos", "eos")}
    settings["split_special_tokens"] = tokenizer.backend_tokenizer.encode_special_tokens
    return {
        TOKENIZER: tokenizer.backend_tokenizer.to_str().encode(),
        SETTINGS: json.dumps(settings).encode(),
        GENERATION: json.dumps({"eos_token_id": model.generation_config.eos_token_id}).encode(),
    }


def _plain(max_tokens: int) -> Any:
    """Greedy: the draws are made before."""
    import transformers

    return transformers.GenerationConfig(max_new_tokens=max_tokens, do_sample=False, pad_token_id=0)


def _found(logits: Tensor, asked: Asked) -> Found:
    """Of logits (T, V) behind the inputs of one sequence."""
    targets = torch.tensor(asked.ids[-asked.scored :], device=logits.device)
    wide = logits[-asked.scored :].float()
    logprobs = wide.gather(1, targets[:, None])[:, 0] - wide.logsumexp(-1)
    return Found(logprobs.double().sum().item(), bool((wide.argmax(-1) == targets).all()))
