"""Byte-level BPE through the `tokenizers` library: trained here, or given and checked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import tokenizers
import xxhash
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from growlm.errors import DataError, RecipeError

EOS = "<|endoftext|>"
"""Ends every document; always a token of its own."""
PAD = "[pad]"
SIGNALS = ("😈", "😡")
"""The tokens that say true and false (U+1F608, U+1F621). FreeLM's paper (arXiv:2305.01616) and FLM-101B's
(arXiv:2309.03852) show the two but do not say which is which: this order is GrowLM's."""
SPECIALS = (EOS, "[tsk]", PAD, "[cls]", "[sep]", *SIGNALS)
"""The special tokens of FLM-101B's release, in its order: the last ids of a tokenizer trained here."""
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How cl100k splits text into words before merging: BPE never merges across."""
PIECE_CHARS = 1 << 18
"""Longer texts are encoded in pieces of about this many characters."""

PADDING = 64
"""A model's vocabulary is a multiple of this."""

_ENDLESS = re.compile(
    r"[^\W\d_]{17,}|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]{4,}"
)
_ENDLESS_BYTES = 10 << 20
_SMALLEST_VOCAB = 256 + len(SPECIALS)
_ENDS = (EOS, "<|end_of_text|>", "</s>", "<eos>")  # what others call the end of a document
_PROBE = "The naïve café: 3.14159 ≈ π,\n\n\tмир 你好，世界。 안녕 שלום 👩‍🚀 don't\r\n  x = {'a': [1, 2]};  "
_CUT_WINDOW = 1024  # characters before the end of a piece that are searched for a place to cut
_SAFE_CUT = re.compile(r"(?<=\S)(?= \S)|(?<=\n)(?=\S)")


class Tokenizer:
    """Text to token ids and back. Special tokens spelled out in a text are encoded as plain text."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self.special_ids: dict[str, int] = _special_ids(inner)
        self.vocab_size: int = max(inner.get_vocab(with_added_tokens=True).values()) + 1
        self.eos: str = next(name for name in _ENDS if name in self.special_ids)
        self.eos_id: int = self.special_ids[self.eos]
        self._json = inner.to_str().encode()

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a `tokenizer.json`; one without an end of document gets `<|endoftext|>` as its last id.

        The end of document is `<|endoftext|>`, else `<|end_of_text|>`, `</s>` or `<eos>`.

        Raises DataError: no tokenizer, ids that are no bijection or too large, text that is lost, or text
        that becomes a special token.
        """
        path = Path(path)
        try:
            inner = tokenizers.Tokenizer.from_str(path.read_text("utf-8"))
        except Exception as error:  # the library raises bare Exception for anything it cannot parse
            raise DataError(
                "A tokenizer cannot be read",
                where=str(path),
                why=str(error),
                fix="give a tokenizer.json of Hugging Face tokenizers, or a *.tiktoken file of ranks",
            ) from error
        _check_ids(inner, path)
        if not _special_ids(inner).keys() & set(_ENDS):
            add_specials(inner, [EOS])
        tokenizer = cls(inner)
        _check_lossless(tokenizer, path)
        check_plain(tokenizer, path)
        return tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Byte-level BPE of at most `vocab_size` tokens, `SPECIALS` among them; deterministic.

        Takes at most about 1.4 GB, whatever the texts: see `_bounded`.

        Raises RecipeError: `vocab_size` is less than the bytes and `SPECIALS`.
        """
        check_vocab_size(vocab_size)
        inner = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(SPECIALS),
            special_tokens=[],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator(_bounded(texts), trainer)
        add_specials(inner, SPECIALS)
        return cls(inner)

    def with_signals(self) -> Tokenizer:
        """This tokenizer if it has the two signal tokens, else one that has them as its last ids.

        Raises DataError: a text that holds them would become them.
        """
        if self.signal_ids:
            return self
        inner = tokenizers.Tokenizer.from_str(self._json.decode())
        add_specials(inner, SIGNALS)
        tokenizer = Tokenizer(inner)
        check_plain(tokenizer, "--tokenizer")
        return tokenizer

    @property
    def signal_ids(self) -> tuple[int, int] | None:
        """Ids of the tokens that say true and false, if the tokenizer has them."""
        yes, no = (self.special_ids.get(name) for name in SIGNALS)
        return None if yes is None or no is None else (yes, no)

    @property
    def json(self) -> bytes:
        """The tokenizer as `save` writes it."""
        return self._json

    @property
    def hash(self) -> str:
        """xxh3-128 of what `save` writes, as 32 hex digits."""
        return xxhash.xxh3_128_hexdigest(self._json)

    @property
    def known_as(self) -> tuple[str, ...]:
        """Hashes of the tokenizers with the same ids: itself, and itself before it had signal tokens."""
        told = json.loads(self._json)
        told["added_tokens"] = [token for token in told["added_tokens"] if token["content"] not in SIGNALS]
        return self.hash, Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(told))).hash

    def save(self, path: Path) -> None:
        """Write a `tokenizer.json`. Raises OSError."""
        path.write_bytes(self._json)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without an end of document."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, on all cores."""
        return [item.ids for item in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of some ids; parts of a character show as U+FFFD, special tokens as their names."""
        return self._inner.decode(ids, skip_special_tokens=False)


def byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """A tokenizer that splits by `PATTERN` and merges bytes by `model`."""
    inner = tokenizers.Tokenizer(model)
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    inner.decoder = decoders.ByteLevel()
    return inner


def add_specials(inner: tokenizers.Tokenizer, names: Iterable[str]) -> None:
    """Give a tokenizer these special tokens after its last id, those that it lacks."""
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])


def check_vocab_size(vocab_size: int) -> None:
    """Raise RecipeError: a vocabulary to be trained has no room for the bytes and `SPECIALS`."""
    if vocab_size < _SMALLEST_VOCAB:
        raise RecipeError(
            f"A vocabulary of {vocab_size} is too small",
            where="--vocab-size",
            why=f"256 bytes and {len(SPECIALS)} special tokens are {_SMALLEST_VOCAB} tokens",
            fix="--vocab-size 8192",
        )


def padded(vocab_size: int) -> int:
    """Rows of an embedding for so many tokens: a multiple of 64, so that tensor parallelism can split it."""
    return -(-vocab_size // PADDING) * PADDING


def pieces(text: str, size: int = PIECE_CHARS) -> Iterator[str]:
    """Cut a text into pieces of at most `size` characters that give the same tokens as the whole.

    They are cut between words, where `PATTERN` never matches across; only an endless word is cut inside.
    """
    start = 0
    while len(text) - start > size:
        end = start + size
        cuts = _SAFE_CUT.finditer(text, max(start + 1, end - _CUT_WINDOW), end)
        last = max((match.start() for match in cuts), default=end)
        yield text[start:last]
        start = last
    yield text[start:]


def check_plain(tokenizer: Tokenizer, path: Path | str) -> None:
    """Raise DataError if a text that spells a special token becomes that token."""
    names = list(tokenizer.special_ids)
    for name, ids in zip(names, tokenizer.encode_batch(names), strict=True):
        if tokenizer.special_ids[name] in ids:
            raise DataError(
                "A tokenizer cannot tell a special token from text",
                where=str(path),
                why=f"the text {name!r} becomes the special token of this name",
                fix="remove it from the plain vocabulary, or use another tokenizer",
            )


def _bounded(texts: Iterable[str]) -> Iterator[str]:
    """The texts, as far as the words of `_ENDLESS` are 10 MiB; from there on without such words.

    Training holds every different word, and some 70 bytes for each of its bytes. Languages with spaces
    repeat their words; without spaces, as in Chinese, a word is a clause, and nearly every one is new.
    """
    left = _ENDLESS_BYTES
    for text in texts:
        if left > 0:
            left -= sum(len(word.encode()) for word in _ENDLESS.findall(text))
            yield text
        else:
            yield _ENDLESS.sub(" ", text)


def _special_ids(inner: tokenizers.Tokenizer) -> dict[str, int]:
    return {token.content: i for i, token in inner.get_added_tokens_decoder().items() if token.special}


def _check_ids(inner: tokenizers.Tokenizer, path: Path) -> None:
    """Raise DataError unless every id means one token and the ids are about as many as the largest."""
    ids = inner.get_vocab(with_added_tokens=True)
    if not ids:
        raise DataError("A tokenizer has no tokens", where=str(path), fix="give a trained tokenizer")
    number, count = Counter(ids.values()).most_common(1)[0]
    if count > 1:
        tokens = sorted(token for token, i in ids.items() if i == number)
        raise DataError(
            "A tokenizer's ids are no bijection",
            where=str(path),
            why=f"id {number} means {', '.join(map(json.dumps, tokens[:3]))}",
            fix="give every token an id of its own",
        )
    token, largest = max(ids.items(), key=lambda item: item[1])
    if largest >= 2 * len(ids) + 1024:
        raise DataError(
            "A tokenizer's ids are too large",
            where=str(path),
            why=f"{json.dumps(token)} has id {largest} among {len(ids)}; a model has a row for each",
            fix="number the tokens from 0",
        )


def _check_lossless(tokenizer: Tokenizer, path: Path) -> None:
    ids = tokenizer.encode(_PROBE)
    if tokenizer.decode(ids) != _PROBE:
        raise DataError(
            "A tokenizer loses text",
            where=str(path),
            why=f"{_PROBE!r} comes back as {tokenizer.decode(ids)!r}",
            fix="use a byte-level tokenizer without normalization",
        )
