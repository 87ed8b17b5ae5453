"""This rank's share of every step, read ahead while the device computes the step before."""

from __future__ import annotations

import numpy as np

from growlm.data.mixture import Batch, Mixture


class Batches:
    """Draws from a mixture; holds one batch that was asked for in advance."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture
        self._ahead: tuple[tuple[int, int], Batch] | None = None

    def prepare(self, stage: int, step: int, rows: list[int]) -> None:
        """Read sequences `rows` of a step. Raises DataError if the text there is damaged."""
        self._ahead = (stage, step), self._mixture.batch(stage, step, np.array(rows))

    def take(self, stage: int, step: int, rows: list[int]) -> Batch:
        """The sequences that were prepared, or else read now. Raises DataError."""
        if self._ahead is None or self._ahead[0] != (stage, step):
            self.prepare(stage, step, rows)
        assert self._ahead is not None
        batch, self._ahead = self._ahead[1], None
        return batch
