"""Log-likelihoods of continuations, with what they have in common read once.

Sorted by their tokens, texts with a common beginning are neighbours. Such a run of neighbours is laid into
one row as a tree: a token sees its own beginning only. Endings of one question share the question, and the
questions of a subject its examples. Rows of about the same length are padded to a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from growlm.inference.halving import in_halves
from growlm.model.decoder import Decoder
from growlm.model.loss import chunk_rows
from growlm.model.reading import Reading
from growlm.plan.flops import attention_flops, matmul_flops


class Asked(NamedTuple):
    """Ids of which the last `scored` are judged, each given all before it."""

    ids: list[int]
    scored: int


class Found(NamedTuple):
    """Of one sequence."""

    logprob: float
    greedy: bool


@dataclass
class Row:
    """A tree: its tokens, their depths, and for each sequence where it begins and what it shares."""

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    branches: list[tuple[int, list[int]]] = field(default_factory=list)
    """(first token, its ancestors) of every part that was added."""
    members: list[tuple[int, list[int]]] = field(default_factory=list)
    """(index of the sequence, where its last `scored` inputs are)."""
    path: list[int] = field(default_factory=list)
    """Where the inputs of the last sequence are."""

    def add(self, index: int, sequence: Asked, shared: int) -> None:
        """Add a sequence that shares so many inputs with the one before it."""
        inputs, start = sequence.ids[:-1], len(self.tokens)
        ancestors = self.path[:shared]
        if len(inputs) > shared:
            self.branches.append((start, ancestors))
            self.tokens += inputs[shared:]
            self.depths += range(shared, len(inputs))
        self.path = ancestors + list(range(start, start + len(inputs) - shared))
        self.members.append((index, self.path[len(inputs) - sequence.scored :]))


class Cost:
    """FLOPs of reading a row of a length, of a forward pass over its whole square."""

    def __init__(self, model: Decoder) -> None:
        products = matmul_flops(model.config, 0)
        self.token = sum(flops for name, flops in products.items() if name != "head") / 3
        self.pair = model.config.n_layers * attention_flops(model.config, 1) / 3

    def of(self, length: int) -> float:
        """Of one row."""
        return length * (self.token + length * self.pair)


def rows_of(sequences: Sequence[Asked], cost: Cost, longest: int) -> list[Row]:
    """Sequences as trees; a new row is begun where that is cheaper, or the old one would pass `longest`."""
    rows: list[Row] = []
    before: list[int] = []
    for index in sorted(range(len(sequences)), key=lambda i: sequences[i].ids[:-1]):
        inputs = sequences[index].ids[:-1]
        shared = common(before, inputs)
        held = len(rows[-1].tokens) if rows else 0
        more = held + len(inputs) - shared
        if not rows or more > longest or cost.of(more) - cost.of(held) > cost.of(len(inputs)):
            rows.append(Row())
            shared = 0
        rows[-1].add(index, sequences[index], shared)
        before = inputs
    return rows


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences begin with together."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))


def score(
    model: Decoder, sequences: Sequence[Asked], *, context: int, batch_tokens: int
) -> Iterator[tuple[int, Found]]:
    """The sequences' scores, each with its index, the longest rows first.

    `context`: positions that there are, at least those of the longest sequence without its last id.
    """
    rows = rows_of(sequences, Cost(model), context)  # a longer one would need a mask of its square
    for batch in batches_of(rows, batch_tokens):
        yield from in_halves(lambda part: _score_rows(model, sequences, part, context), batch)


def batches_of(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """Rows of similar length together, the longest first."""
    ordered = sorted(rows, key=lambda row: -len(row.tokens))
    batch: list[Row] = []
    for row in ordered:
        if batch and (len(batch) + 1) * len(batch[0].tokens) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def _score_rows(
    model: Decoder, sequences: Sequence[Asked], rows: Sequence[Row], context: int
) -> list[tuple[int, Found]]:
    tokens, reading = layout(rows, context, model.device)
    hidden = model(tokens, reading=reading).flatten(0, 1)
    width = tokens.shape[1]
    wanted = [
        (row * width + at, target)
        for row, tree in enumerate(rows)
        for index, places in tree.members
        for at, target in zip(
            places, sequences[index].ids[len(sequences[index].ids) - len(places) :], strict=True
        )
    ]
    logprobs, greedy = judge(model, hidden, *zip(*wanted, strict=True)) if wanted else ([], [])
    found, done = [], 0
    for tree in rows:
        for index, places in tree.members:
            part = slice(done, done + len(places))
            found.append((index, Found(sum(logprobs[part]), all(greedy[part]))))
            done += len(places)
    return found


def layout(rows: Sequence[Row], context: int, device: torch.device) -> tuple[Tensor, Reading]:
    """Tokens (B, T), padded, and how they are read."""
    B, T = len(rows), max(len(row.tokens) for row in rows)
    tokens, positions = (torch.zeros(B, T, dtype=torch.long) for _ in range(2))
    seen = torch.ones(T, T, dtype=torch.bool).tril_().repeat(B, 1, 1)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = torch.tensor(row.tokens)
        positions[i, : len(row.tokens)] = torch.tensor(row.depths)
        ends = [start for start, _ in row.branches[1:]] + [len(row.tokens)]
        for (start, ancestors), end in zip(row.branches, ends, strict=True):
            seen[i, start:end, :start] = False
            seen[i, start:end, ancestors] = True
    return tokens.to(device), Reading(positions.to(device), context, seen[:, None].to(device))


def judge(
    model: Decoder, hidden: Tensor, places: Sequence[int], targets: Sequence[int]
) -> tuple[list[float], list[bool]]:
    """Log-probability of each target at its place of hidden (N, D), and whether it is the likeliest.

    Every place goes through the head once, however many targets it has.
    """
    unique, of = torch.tensor(places).unique(return_inverse=True)
    of, ids = of.to(hidden.device), torch.tensor(targets, device=hidden.device)
    logprobs = torch.empty(len(ids), dtype=torch.float64, device=hidden.device)
    greedy = torch.empty(len(ids), dtype=torch.bool, device=hidden.device)
    step = chunk_rows(model.config.vocab_size, hidden.device)
    for start in range(0, len(unique), step):
        part = unique[start : start + step].to(hidden.device)
        logits = model.head_logits(hidden[part][None])[0]  # N V
        mine = ((of >= start) & (of < start + step)).nonzero().squeeze(1)
        row, id_ = of[mine] - start, ids[mine]
        logprobs[mine] = (logits[row, id_] - logits.logsumexp(-1)[row]).double()
        greedy[mine] = logits.argmax(-1)[row] == id_
    return logprobs.tolist(), greedy.tolist()
