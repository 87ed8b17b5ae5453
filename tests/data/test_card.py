"""The data card says what the manifest says, and no text of the data breaks its page."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from growlm.data.card import facts, markdown, read_card, samples_of
from growlm.data.dataset import TokenDataset
from growlm.data.manifest import Step
from growlm.data.prepare import Cleaning, prepare
from growlm.data.sources import SourceOptions
from growlm.data.tokenizer import SIGNALS, Tokenizer
from tests.data.texts import chinese, english, write_jsonl


def test_samples_are_beginnings_of_training_documents(dataset: TokenDataset) -> None:
    samples = samples_of(dataset, Tokenizer.load(dataset.tokenizer_path), n=4, length=40)
    texts = {"en": english(60), "zh": chinese(40)}
    for source, found in samples.items():
        assert len(set(found)) == 4
        for sample in found:
            assert sample.endswith("…")
            assert len(sample) == 41
            assert any(text.startswith(sample[:-1]) for text in texts[source])


def test_a_whole_document_is_shown_without_an_ellipsis(dataset: TokenDataset) -> None:
    samples = samples_of(dataset, Tokenizer.load(dataset.tokenizer_path), n=2, length=5000)
    assert set(samples["en"]) <= set(english(60))


def test_examples_are_shown_with_their_end(tmp_path: Path) -> None:
    rows = [
        {"text": f"Number {i} is here. " * (9 + i), "proposition": f"It is {i}.", "signal": i % 2 == 0}
        for i in range(30)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = {"rows": SourceOptions([tmp_path / "rows.jsonl"], kind="signals")}
    prepare(tmp_path / "out", sources, vocab_size=400, validation_share=0.2)
    dataset = TokenDataset.open(tmp_path / "out")
    found = samples_of(dataset, Tokenizer.load(dataset.tokenizer_path), length=60)["rows"]
    documents = dataset.manifest.sources["rows"].splits["train"].documents
    assert len(set(found)) == len(found) > documents / 2
    for text in found:
        start, end = text.split(" … ")
        number = int(start.split()[1])
        assert end.endswith(f"It is {number}.{SIGNALS[number % 2]}")


def test_every_evaluation_set_is_told_of(tmp_path: Path) -> None:
    texts = english(30)
    quoted = " ".join(texts[3].split()[10:40])
    for name, question in (
        ("quoted", quoted),
        ("other", "Why do birds sing, and who listens to them at night?"),
    ):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": question}))
    sets = [tmp_path / "quoted.jsonl", tmp_path / "other.jsonl"]
    sources = {"en": [write_jsonl(tmp_path / "en.jsonl", texts)]}
    cleaning = Cleaning(decontaminate=sets)
    manifest = prepare(tmp_path / "out", sources, vocab_size=400, validation_share=0.2, cleaning=cleaning)
    found = facts(manifest, {})
    assert found["contamination"] == {"other": 0, "quoted": 1}
    assert "| other | 0 |" in markdown(found)


def test_the_facts_add_up_to_the_manifest(dataset: TokenDataset) -> None:
    manifest = dataset.manifest
    found = facts(manifest, {})
    assert found == json.loads(json.dumps(found))
    assert found["fingerprint"] == dataset.fingerprint
    for name, source in manifest.sources.items():
        told = found["sources"][name]
        for split, part in source.splits.items():
            assert told["splits"][split] == {
                "documents": part.documents,
                "bytes": part.bytes,
                "tokens": part.tokens,
            }
        tokens = dataset.tokens(name, "train") + dataset.tokens(name, "valid")
        assert told["bytes_per_token"] * tokens == sum(part.bytes for part in source.splits.values())
    assert found["train"]["tokens"] == sum(dataset.tokens(name, "train") for name in dataset.sources)


def test_languages_are_counted_by_samples_and_few_are_shown(dataset: TokenDataset) -> None:
    english_text, chinese_text = "the river and the mountain of light", "天地玄黄宇宙洪荒"
    samples = {
        "en": [f"{english_text} {i}" for i in range(75)] + [chinese_text] * 25,
        "zh": [chinese_text] * 9,
    }
    found = facts(dataset.manifest, samples)
    en, zh = (dataset.tokens(name, "train") for name in ("en", "zh"))
    assert found["sources"]["en"]["languages"] == {"en": 0.75, "zh": 0.25}
    assert found["languages"] == {"en": round(0.75 * en), "zh": round(0.25 * en) + zh}
    assert found["sources"]["en"]["samples"] == [samples["en"][i] for i in (0, 34, 68)]


def test_the_page_has_every_number_of_the_facts(dataset: TokenDataset) -> None:
    steps = (
        Step(
            name="quality", documents_in=70, documents_out=60, bytes_in=9, bytes_out=8, reasons={"html": 10}
        ),
        Step(
            name="contamination",
            documents_in=60,
            documents_out=57,
            bytes_in=8,
            bytes_out=7,
            reasons={"boolq": 3},
        ),
    )
    sources = {
        name: source.model_copy(update={"steps": steps, "licenses": {"CC0 | public": 57}})
        for name, source in dataset.manifest.sources.items()
    }
    manifest = dataset.manifest.model_copy(update={"sources": sources})
    found = facts(manifest, {"en": ["a sample"]})
    found["mixture"] = {"seed": {"en": 3.0, "zh": 1.0}}
    assert found["contamination"] == {"boolq": 6}
    page = markdown(found)
    for text in ("html 10", "| boolq | 6 |", "a sample", "CC0 \\| public", "75.0 %", "25.0 %"):
        assert text in page
    for source in found["sources"].values():
        for part in source["splits"].values():
            assert f"{part['tokens']:,}" in page


@given(st.text())
def test_no_sample_ends_its_block(prepared_text: str) -> None:
    attack = f"{prepared_text}\n```\n</details><script>x</script>\n````\n# Heading"
    page = markdown(_one_source(attack))
    fence = re.search(r"^(`+)text$", page, re.MULTILINE)
    assert fence
    inside = page.split(f"{fence[1]}text\n", 1)[1].split(f"\n{fence[1]}\n", 1)
    assert inside[1] == "\n</details>\n"
    assert not any(re.match(rf" {{0,3}}`{{{len(fence[1])},}}", line) for line in inside[0].split("\n"))


@given(st.text(alphabet="|`*_<>[]\n\r\\&#~ ab\u202e\u2028"))
def test_no_name_ends_its_cell(name: str) -> None:
    page = markdown(_one_source("x", license=name))
    row = next(line for line in page.split("\n") if line.startswith("| web | ") and line.endswith("| 1 |"))
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 4
    assert "<" not in row


def _one_source(sample: str, license: str = "CC0") -> dict[str, object]:
    split = {"documents": 1, "bytes": 4, "tokens": 2}
    source = {
        "kind": "text",
        "files": 1,
        "licenses": {license: 1},
        "steps": [],
        "splits": {"train": split},
        "bytes_per_token": 2.0,
        "languages": {},
        "samples": [sample],
    }
    return {
        "fingerprint": "f",
        "tokenizer": {"vocab_size": 300, "hash": "h", "eos_id": 0, "signal_ids": None},
        "validation_share": 0.01,
        "train": split,
        "languages": {},
        "sources": {"web": source},
        "contamination": {},
        "mixture": {},
    }


def test_what_is_no_card_is_none(dataset: TokenDataset, tmp_path: Path) -> None:
    path, found = tmp_path / "card.json", facts(dataset.manifest, {"en": ["a 😈 sample"]})
    assert read_card(path) is None
    path.write_text(json.dumps(found))
    assert read_card(path) == found
    for wrong in ("{", "[]", json.dumps(found | {"validation_share": float("nan")})):
        path.write_text(wrong)
        assert read_card(path) is None


def test_a_prepared_folder_gives_its_card(prepared: Path) -> None:
    dataset = TokenDataset.open(prepared)
    page = markdown(facts(dataset.manifest, samples_of(dataset, Tokenizer.load(dataset.tokenizer_path))))
    assert page.startswith("# Data\n")
    assert "not stated" in page
