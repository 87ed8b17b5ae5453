"""Text to ids and back as lm-evaluation-harness does for a model of transformers, so that scores compare.

A context and its continuation are encoded together, and cut where the context alone ends; spaces between
the two belong to the continuation (`TemplateLM._encode_pair` in lm_eval/api/model.py). Without a context the
model sees its beginning-of-text token, or else its end-of-text token. Which tokens frame a text is what
tokenizer.json says: `add_bos_token` in the settings beside it means nothing, as in transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers

from growlm.convert.companions import GENERATION
from growlm.data.tokenizer_files import SETTINGS, TOKENIZER
from growlm.errors import CheckpointError

UNKNOWN = "\ufffd"
"""What a decoder writes for a part of a character."""
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")


class Pair(NamedTuple):
    """A context and its continuation as ids; neither is cut."""

    context: list[int]
    continuation: list[int]


class Text:
    """The tokenizer of a model with all that decides how texts are framed."""

    def __init__(self, files: Mapping[str, bytes], where: str = "") -> None:
        """Of the tokenizer files of a Hugging Face folder, by name. Raises CheckpointError."""
        try:
            self._inner = tokenizers.Tokenizer.from_str(files[TOKENIZER].decode())
            settings = json.loads(files.get(SETTINGS, b"{}"))
            generation = json.loads(files.get(GENERATION, b"{}"))
        except Exception as error:  # the library raises bare Exception for anything it cannot parse
            why = f"{TOKENIZER} is missing" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(
                "the tokenizer of this model cannot be read",
                where=where,
                why=why,
                fix="put the model's tokenizer.json and tokenizer_config.json beside its weights",
            ) from error
        self._inner.no_truncation()
        self._inner.no_padding()
        self.splits_special = bool(settings.get("split_special_tokens", False))
        """Whether the names of special tokens in a text are letters like any others."""
        self._inner.encode_special_tokens = self.splits_special
        self.bos_id = self._id(settings, generation, "bos")
        self.eos_id = self._id(settings, generation, "eos")
        if self.eos_id is None:
            found = (self._inner.token_to_id(name) for name in _ENDS)
            self.eos_id = next((i for i in found if i is not None), None)
        self.ends = frozenset(_ids(generation.get("eos_token_id"))) | frozenset(_ids(self.eos_id))
        """Ids that end a text."""
        known = set(self._inner.get_vocab(with_added_tokens=True).values())
        self.vocab_size = max(known) + 1
        """Ids from here on mean nothing."""
        self.holes = tuple(i for i in range(self.vocab_size) if i not in known)
        """And neither do these."""
        self._beginnings = [self.name_of(i) for i in (self.bos_id, self.eos_id) if i is not None][:1]

    @property
    def prefix_id(self) -> int:
        """What a text without a beginning is read behind."""
        found = self.eos_id if self.bos_id is None else self.bos_id
        return 0 if found is None else found

    @property
    def json(self) -> str:
        """The tokenizer as its library writes it."""
        return self._inner.to_str()

    def name_of(self, token: int) -> str:
        """How a token is written, special or not."""
        return self._inner.decode([token], skip_special_tokens=False)

    def encode(self, text: str, *, frame: bool = True) -> list[int]:
        """Ids of a text, with what the tokenizer puts around it; of a framed text not once more."""
        return self.encode_all([text], frame=frame)[0]

    def encode_all(self, texts: Sequence[str], *, frame: bool = True) -> list[list[int]]:
        """Ids of each text, on all cores."""
        if not frame:
            found = self._inner.encode_batch_fast(texts, add_special_tokens=False)
            return [item.ids for item in found]
        bare = [any(text.startswith(name) for name in self._beginnings) for text in texts]
        framed = iter(self._encode([t for t, is_bare in zip(texts, bare, strict=True) if not is_bare], True))
        rest = iter(self._encode([t for t, is_bare in zip(texts, bare, strict=True) if is_bare], False))
        return [next(rest if is_bare else framed) for is_bare in bare]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens; parts of a character show as U+FFFD."""
        return self._inner.decode(ids, skip_special_tokens=True)

    def pairs(self, contexts: Sequence[str], continuations: Sequence[str]) -> list[Pair]:
        """Each context and its continuation as the harness encodes them."""
        bare = [not context for context in contexts]
        moved = [
            (context.rstrip(), context[len(context.rstrip()) :] + continuation)
            for context, continuation in zip(contexts, continuations, strict=True)
        ]
        unique = {context: i for i, context in enumerate(dict.fromkeys(context for context, _ in moved))}
        heads = self.encode_all(list(unique))
        wholes = self.encode_all([context + continuation for context, continuation in moved])
        alone = iter(
            self.encode_all(
                [t for t, is_bare in zip(continuations, bare, strict=True) if is_bare], frame=False
            )
        )
        found = []
        for (context, _), whole, is_bare in zip(moved, wholes, bare, strict=True):
            head = heads[unique[context]]
            if is_bare or not head:  # of spaces alone, too, no token is left
                found.append(self._alone(next(alone) if is_bare else whole))
            else:
                found.append(Pair(head, whole[len(head) :]))
        return found

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts to go on with; of an empty one the prefix."""
        return [ids or [self.prefix_id] for ids in self.encode_all(texts)]

    def _alone(self, continuation: list[int]) -> Pair:
        """A continuation of nothing: of the prefix, which is not repeated if it has it."""
        if continuation[:1] == [self.prefix_id]:
            return Pair(continuation[:1], continuation[1:])
        return Pair([self.prefix_id], continuation)

    def _encode(self, texts: list[str], frame: bool) -> list[list[int]]:
        if not texts:
            return []
        return [item.ids for item in self._inner.encode_batch_fast(texts, add_special_tokens=frame)]

    def _id(self, settings: Mapping[str, Any], generation: Mapping[str, Any], role: str) -> int | None:
        """The id of a special token by the tokenizer's settings, or else by how the model generates."""
        named = settings.get(f"{role}_token")
        name = named.get("content") if isinstance(named, dict) else named
        found = self._inner.token_to_id(name) if isinstance(name, str) else None
        if found is None and f"{role}_token" not in settings:
            found = next(iter(_ids(generation.get(f"{role}_token_id"))), None)
        return found


def _ids(value: Any) -> list[int]:
    """Ids that may be one, many or none."""
    if isinstance(value, list):
        return [i for i in value if isinstance(i, int)]
    return [value] if isinstance(value, int) else []


class Stream:
    """Ids to text one by one: `push` gives what is sure of the text, `finish` the rest of it.

    A character may be spread over several tokens; and what a token says may depend on the one before it,
    so each is decoded behind a few known ones; the first behind `before`, which is not given again.
    """

    def __init__(self, text: Text, before: Sequence[int] = ()) -> None:
        self._text = text
        whole = not text.decode(before).endswith(UNKNOWN)
        self._ids = list(before) if whole else []
        self._known, self._read = 0, len(self._ids)  # ids[known:read] are known, to begin what follows

    def push(self, token: int) -> str:
        """The new text, empty while a character is incomplete."""
        self._ids.append(token)
        before, now = self._decoded()
        if now.endswith(UNKNOWN) or len(now) <= len(before):
            return ""
        self._known, self._read = self._read, len(self._ids)
        return now[len(before) :]

    def finish(self) -> str:
        """What was held back."""
        before, now = self._decoded()
        self._known = self._read = len(self._ids)
        return now[len(before) :]

    def _decoded(self) -> tuple[str, str]:
        old = self._text.decode(self._ids[self._known : self._read])
        return old, self._text.decode(self._ids[self._known :])
