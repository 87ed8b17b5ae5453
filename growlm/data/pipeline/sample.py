"""Phase 5: the tokenizer, trained on an even draw of the training text; or given, and only copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from growlm.data.pipeline.chunks import Chunk
from growlm.data.pipeline.plan import SourcePlan
from growlm.data.pipeline.settle import SAMPLE_BINS, SAMPLE_PIECE, Settled
from growlm.data.pipeline.work import TOKENIZER, Work
from growlm.data.tokenizer import Tokenizer

SAMPLE_BYTES = 32 << 20
"""Text that the tokenizer is trained on, of all sources together."""
_FLOOR = 4 << 20


def sample_bins(
    sources: Mapping[str, SourcePlan], found: Mapping[str, Settled], budget: int = SAMPLE_BYTES
) -> dict[str, int]:
    """How many of the `SAMPLE_BINS` the sample takes of each source: about its share of the budget.

    The share is by the sources' weights. Without weights it is equal, as much as the smallest source has,
    but at least 4 MiB of each source that has them.
    """
    sizes = {name: int(found[name].bins.sum()) for name in sources if sources[name].kind != "tokens"}
    weights = {name: sources[name].weight for name in sizes}
    total = sum(weight or 0.0 for weight in weights.values())
    bins = {}
    for name in sizes:
        if total:
            share = budget * (weights[name] or 0.0) / total
        else:
            share = min(budget // len(sizes), max(min(sizes.values()), _FLOOR))
        bins[name] = int(np.searchsorted(np.cumsum(found[name].bins), share)) + 1 if share else 0
    return bins


def train(work: Work, number: int, advance: Callable[[int], None]) -> None:
    """Train the tokenizer. Raises RecipeError: too small a vocabulary."""
    with work.commit("tokenizer", number) as folder:
        Tokenizer.train(_texts(work, advance), work.plan.vocab_size).save(folder / TOKENIZER)


def _texts(work: Work, advance: Callable[[int], None]) -> Iterator[str]:
    """The sample: documents of training groups whose hash is in the first bins of their source."""
    decisions = work.read("decisions")
    for number, place in enumerate(work.chunks):
        of_source = decisions[place.source]
        chunk = Chunk(work, place)
        docs = chunk.docs()
        wanted = np.load(work.path("settle", number) / "kept.npy")
        wanted &= docs["group"] >= np.uint64(of_source["limit"])
        wanted &= docs["low"] // np.uint64((1 << 64) // SAMPLE_BINS) < np.uint64(of_source["bins"])
        for index, segments in chunk.documents(wanted):
            advance(int(docs["bytes"][index]))
            for segment in segments:
                if not segment.special:
                    yield segment.text[:SAMPLE_PIECE]
