"""Texts are encoded as lm-evaluation-harness encodes them for the same folder under transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from growlm.convert.companions import companions_for, companions_of
from growlm.errors import CheckpointError
from growlm.inference.asking import windows
from growlm.inference.text import Text
from tests.inference.models import tokenizer

lm_eval = pytest.importorskip("lm_eval")

from lm_eval import utils  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models import huggingface  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

HFLM: Any = huggingface.HFLM

PAIRS = [
    ("the cat", " sat on the mat"),
    ("the cat ", "sat"),
    ("the cat \n ", " sat"),
    ("", "the cat"),
    ("", " <|endoftext|> cat"),
    ("Q: what?\nA:", " a ☃"),
    ("the c", "at"),  # a token would go across
    ("<|endoftext|>the cat", " sat"),
    ("猫", "在"),
]


class Theirs(HFLM):
    """The harness's own, with a tokenizer and without a model."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.pad_token = self.tokenizer.eos_token
        self.add_bos_token = self.custom_prefix_token_id = None
        self.backend = "causal"
        self.asked: list[Any] = []

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> Any:
        self.asked = [(context, continuation) for _, context, continuation in requests]
        return []

    def pairs(self, pairs: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        self.enable_thinking = None
        asked: Any = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        self.loglikelihood(asked, disable_tqdm=True)
        return self.asked


def ours(tmp_path: Path) -> Path:
    for name, data in companions_for(tokenizer(), 64).items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def with_bos(tmp_path: Path) -> Path:
    """A tokenizer whose post-processor writes a beginning; special tokens in a text are special."""
    inner = tokenizers.Tokenizer.from_str(tokenizer().json.decode())
    inner.add_special_tokens(["<s>"])
    start = inner.token_to_id("<s>")
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    inner.save(str(tmp_path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def told_to_add_bos(tmp_path: Path) -> Path:
    """The settings do not overrule the post-processor."""
    folder = with_bos(tmp_path)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    bos = {"content": "<s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    told |= {"add_bos_token": False, "add_eos_token": False, "bos_token": bos | {"__type": "AddedToken"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


def without_bos(tmp_path: Path) -> Path:
    """Only an end, which then is the beginning, too."""
    tokenizer().save(tmp_path / "tokenizer.json")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


FOLDERS = [ours, with_bos, told_to_add_bos, without_bos]


@pytest.mark.parametrize("make", FOLDERS)
def test_pairs_are_the_harness_s(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path)
    text, theirs = Text(companions_of(folder)), Theirs(folder)
    contexts, continuations = zip(*PAIRS, strict=True)
    assert [tuple(pair) for pair in text.pairs(contexts, continuations)] == theirs.pairs(PAIRS)
    assert text.prefix_id == theirs.prefix_token_id
    assert theirs.eot_token_id in text.ends
    for context, _ in PAIRS[:3]:
        assert text.prompts([context])[0] == theirs.tok_batch_encode([context])[0][0].tolist()
        assert text.decode(text.encode(context)) == theirs.tok_decode(theirs.tok_encode(context))


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.text("ae th\n☃", min_size=1, max_size=6), st.text("ae th☃", min_size=1)), max_size=4
    )
)
def test_any_pairs(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    pairs = [(context, continuation) for context, continuation in pairs if context.strip()]
    folder = ours(tmp_path_factory.mktemp("text"))
    found = Text(companions_of(folder)).pairs([c for c, _ in pairs], [c for _, c in pairs])
    assert [tuple(pair) for pair in found] == Theirs(folder).pairs(pairs)


def test_a_context_of_spaces_alone_is_none() -> None:
    """The harness fails on it."""
    text = Text(companions_for(tokenizer(), None))
    (pair,) = text.pairs(["  "], ["a"])
    assert pair == ([text.prefix_id], text.encode("  a"))


@pytest.mark.parametrize("length", [0, 1, 5, 8, 9, 16, 21])
def test_windows_of_a_long_text_are_the_harness_s(length: int) -> None:
    ids = list(range(100, 100 + length))
    expected = [
        (list(context) + list(continuation), len(continuation))
        for context, continuation in map(
            utils.make_disjoint_window, utils.get_rolling_token_windows(ids, 7, max_seq_len=8, context_len=1)
        )
    ]
    assert [(one.ids, one.scored) for one in windows(ids, 7, 8)] == expected


def test_ids_that_mean_nothing() -> None:
    text = Text(companions_for(tokenizer(), None))
    assert text.vocab_size == tokenizer().vocab_size
    assert text.holes == ()


def test_no_tokenizer_is_one_clear_error() -> None:
    with pytest.raises(CheckpointError, match=r"(?s)cannot be read.*tokenizer\.json is missing"):
        Text({})
