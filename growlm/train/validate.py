"""Validation per source at fixed tokens, continuations of fixed prompts, and judgements of statements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from growlm.data.dataset import TokenDataset
from growlm.data.examples import proposition_text
from growlm.data.tokenizer import Tokenizer
from growlm.errors import CheckpointError
from growlm.parallel.engine import Engine


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


class HeldOut(NamedTuple):
    """Some sequences of a source's validation split, (N, T) each."""

    tokens: Tensor
    targets: Tensor
    learnt: Tensor
    """bool: the targets that its objective learns."""


def held_out(
    dataset: TokenDataset,
    source: str,
    seq_len: int,
    tokens: int,
    device: torch.device,
    *,
    everything: bool = False,
) -> HeldOut:
    """Always the same about `tokens` tokens; `everything`: of examples not only what is marked is learnt.

    Raises DataError.
    """
    found = dataset.validation(source, seq_len, tokens)
    arrays = (found.tokens, found.targets, found.real if everything else found.marked)
    return HeldOut(*(torch.from_numpy(a).to(device) for a in arrays))


def held_out_loss(engine: Engine, held: HeldOut) -> float:
    """Mean loss of the targets that are learnt."""
    losses = engine.token_losses(held.tokens, held.targets, engine.layout.micro_batch)
    return losses[held.learnt].mean().item()


@dataclass(frozen=True)
class Judged:
    """Held-out propositions."""

    loss: float
    """Mean loss of the signals, told apart from the whole vocabulary."""
    loss_of_two: float
    """The same, told apart from each other only."""
    accuracy: float
    """Share that is judged right: the signal that is there is likelier than the other."""


def held_out_signals(engine: Engine, held: HeldOut, signals: tuple[int, int]) -> Judged:
    """How a source of propositions is judged."""
    true, false = signals
    other = torch.where(held.targets == true, false, true)
    judged = (held.targets == true) | (held.targets == false)  # in no text are they tokens
    turned = held.targets.where(~judged, other)
    rows = engine.layout.micro_batch
    mine, its = (engine.token_losses(held.tokens, y, rows)[judged] for y in (held.targets, turned))
    of_two = torch.nn.functional.softplus(mine - its)
    right = (mine < its).double() + 0.5 * (mine == its)
    return Judged(mine.mean().item(), of_two.mean().item(), right.mean().item())


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


@torch.no_grad()
def judge(model: NextToken, tokenizer: Tokenizer, text: str, statement: str, *, context: int) -> float:
    """Probability that a statement about a text (or about nothing) is true.

    The softmax over the logits of the two signal tokens, where a teacher signal stands; the model sees the
    last `context` tokens. Raises CheckpointError: the tokenizer has no signal tokens.
    """
    if tokenizer.signal_ids is None:
        raise CheckpointError(
            "This model cannot judge: its tokenizer has no signal tokens",
            why="it was prepared without teacher signals",
            fix="train on data with them: growlm data prepare OUT --signals NAME=PATH ...",
        )
    ids = tokenizer.encode(proposition_text(text, statement)) or [tokenizer.eos_id]
    window = torch.tensor([ids[-context:]], device=model.device)
    return torch.softmax(model.next_logits(window)[list(tokenizer.signal_ids)].double(), dim=-1)[0].item()


def _draw(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    values, candidates = logits.topk(min(top_k, len(logits)))
    chosen = torch.multinomial(torch.softmax(values / temperature, dim=-1), 1, generator=generator)
    return int(candidates[chosen])
