"""What a document is on its way into tokens: pieces of text, of which some are learnt by its objective."""

from __future__ import annotations

from typing import NamedTuple


class Segment(NamedTuple):
    """A piece of a document; its tokens never merge with those of the next."""

    text: str
    learn: bool = False
    """Whether the objective of an example (teacher, instruction) has its loss on these tokens."""
    special: bool = False
    """`text` is the name of a special token, and becomes its one id. All else is plain text, always."""


class Document(NamedTuple):
    """A text, or an example (a proposition with its signal, a prompt with its answer)."""

    segments: tuple[Segment, ...]
    group: str
    """Documents of one group are all training or all validation: a text, or what an example is about, without
    white space around it."""
    license: str = ""

    @property
    def text(self) -> str:
        """All of it, with special tokens spelled out."""
        return "".join(segment.text for segment in self.segments)


def text_document(text: str, license: str = "") -> Document:
    """A document of running text."""
    return Document((Segment(text),), text.strip(), license)
