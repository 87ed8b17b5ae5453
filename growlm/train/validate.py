"""Validation per source at fixed tokens, and continuations of fixed prompts."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from growlm.data.dataset import TokenDataset
from growlm.data.tokenizer import Tokenizer


class NextToken(Protocol):
    """A model to sample from: of one process, or an engine over many."""

    @property
    def device(self) -> torch.device:
        """Where its tokens are."""
        ...

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Logits (V) behind the last of tokens (1, T)."""
        ...

    def agree(self, token: int) -> int:
        """The token that all ranks go on with, where this one drew `token`."""
        ...


def validation_batch(
    dataset: TokenDataset, source: str, seq_len: int, tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Tokens and targets (N, T) of a source's validation split."""
    x, y = dataset.validation(source, seq_len, tokens)
    return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)


@torch.no_grad()
def generate(
    model: NextToken,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    tokens: int,
    context: int,
    seed: int,
    temperature: float = 0.8,
    top_k: int = 50,
) -> str:
    """Continue `prompt` by up to `tokens` tokens, seeing the last `context`; temperature 0 is greedy."""
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt) or [tokenizer.eos_id]
    start = len(ids)
    for _ in range(tokens):
        window = torch.tensor([ids[-context:]], device=model.device)
        logits = model.next_logits(window)[: tokenizer.vocab_size].cpu()
        drawn = model.agree(_draw(logits, temperature, top_k, generator))
        if drawn == tokenizer.eos_id:
            break
        ids.append(drawn)
    return tokenizer.decode(ids[start:])


def _draw(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    values, candidates = logits.topk(min(top_k, len(logits)))
    chosen = torch.multinomial(torch.softmax(values / temperature, dim=-1), 1, generator=generator)
    return int(candidates[chosen])
