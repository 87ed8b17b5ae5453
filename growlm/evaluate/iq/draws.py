"""Random draws that are the same on every machine and in every version of Python."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import xxhash

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)

_RANGE = 1 << 64


class Draws:
    """A stream of draws that depends on its key alone: draw number n is the XXH64 of `key/n`."""

    def __init__(self, *key: str | int) -> None:
        self._key = "/".join(map(str, key))
        self._count = 0

    def below(self, n: int) -> int:
        """A number from 0 to n - 1, all equally likely."""
        while True:
            drawn = xxhash.xxh64_intdigest(f"{self._key}/{self._count}".encode())
            self._count += 1
            if drawn < _RANGE - _RANGE % n:
                return drawn % n

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different ones, in random order."""
        left = list(options)
        for place in range(count):
            other = place + self.below(len(left) - place)
            left[place], left[other] = left[other], left[place]
        return left[:count]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """All of them, in random order."""
        return self.sample(options, len(options))

    def text(self, alphabet: str, length: int) -> str:
        """`length` characters, each drawn anew."""
        return "".join(self.choice(alphabet) for _ in range(length))

    def distinct(self, draw: Callable[[], H], count: int) -> list[H]:
        """`count` different results of `draw`, which must have that many."""
        found: dict[H, None] = {}
        while len(found) < count:
            found[draw()] = None
        return list(found)
