"""What P(true) of a statement is, and that it is what a model learns to say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import models

from growlm.data.examples import signal_document
from growlm.data.tokenizer import Tokenizer, byte_level
from growlm.errors import CheckpointError
from growlm.train.validate import judge
from tests.model.tiny import config, decoder, trained

TEXT = ["The river carries the letter. " * 3, "河流带走书信。" * 3]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXT, 300)


def test_the_probability_is_of_the_two_signals_behind_the_statement(tokenizer: Tokenizer) -> None:
    c = config(vocab_size=tokenizer.vocab_size)
    model = decoder(c, trained(c, dtype=torch.float32))
    document = signal_document({"text": "A river.", "proposition": "It is wet.", "signal": True}, "")
    ids = tokenizer.encode(document.segments[0].text)
    assert tokenizer.signal_ids is not None
    logits = model.logits(torch.tensor([ids]))[0, -1].double()
    true, false = (logits[i].exp().item() for i in tokenizer.signal_ids)
    found = judge(model, tokenizer, "A river. ", "It is wet.", context=512)
    assert found == pytest.approx(true / (true + false))
    logits = model.logits(torch.tensor([ids[-4:]]))[0, -1].double()
    true, false = (logits[i].exp().item() for i in tokenizer.signal_ids)
    assert judge(model, tokenizer, "A river.", "It is wet.", context=4) == pytest.approx(
        true / (true + false)
    )


def test_a_model_that_knows_judges_right(tokenizer: Tokenizer) -> None:
    c = config(vocab_size=tokenizer.vocab_size)
    model = decoder(c, trained(c, dtype=torch.float32))
    rows = [("A river.", "It is wet.", True), ("A river.", "It is dry.", False), ("", "Two is even.", True)]
    assert tokenizer.signal_ids is not None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(20):
        for text, statement, truth in rows:
            row = {"text": text, "proposition": statement, "signal": truth}
            ids = tokenizer.encode(signal_document(row, "").segments[0].text)
            target = torch.tensor(tokenizer.signal_ids[0 if truth else 1])
            loss = torch.nn.functional.cross_entropy(model.logits(torch.tensor([ids]))[0, -1], target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for text, statement, truth in rows:
        assert (judge(model, tokenizer, text, statement, context=64) > 0.5) == truth


def test_a_tokenizer_without_signals_cannot_judge(tokenizer: Tokenizer, tmp_path: Path) -> None:
    plain = byte_level(models.BPE(dict(zip(_alphabet(), range(256), strict=True)), []))
    plain.save(str(tmp_path / "tokenizer.json"))
    c = config(vocab_size=tokenizer.vocab_size)
    with pytest.raises(CheckpointError, match="no signal tokens"):
        judge(decoder(c), Tokenizer.load(tmp_path / "tokenizer.json"), "a", "b", context=8)


def _alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())
