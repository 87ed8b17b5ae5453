"""Rows of Chinese sets, in any known format, as the columns that the tasks read; see `english`."""

from __future__ import annotations

from growlm.evaluate.knowledge.english import Row, label, letter, options, text, texts


def afqmc(row: Row) -> list[Row]:
    """AFQMC: do two questions to a bank mean the same? Labels may be the strings 0 and 1."""
    return [
        {
            "sentence1": text(row, "sentence1"),
            "sentence2": text(row, "sentence2"),
            "label": label(row["label"], "01"),
        }
    ]


def csl(row: Row) -> list[Row]:
    """CSL: are these the keywords of an abstract? Labels may be the strings 0 and 1."""
    return [
        {
            "abst": text(row, "abst"),
            "keyword": texts(row["keyword"], "keyword"),
            "label": label(row["label"], "01"),
        }
    ]


def ocnli(row: Row) -> list[Row]:
    """OCNLI; a row that its annotators did not agree on has the label `-` and is left out."""
    if row["label"] in ("-", -1):
        return []
    return [
        {
            "sentence1": text(row, "sentence1"),
            "sentence2": text(row, "sentence2"),
            "label": label(row["label"], ("neutral", "entailment", "contradiction")),
        }
    ]


def cluewsc(row: Row) -> list[Row]:
    """CLUEWSC2020; true is 0 as on the hub, spans are counted in characters."""
    told = row["target"]
    spans = {
        "span1_text": text(told, "span1_text"),
        "span2_text": text(told, "span2_text"),
        "span1_index": int(told["span1_index"]),
        "span2_index": int(told["span2_index"]),
    }
    return [{"text": text(row, "text"), "target": spans, "label": label(row["label"], ("true", "false"))}]


def cmmlu(row: Row) -> Row:
    """CMMLU as published (`Question`, A to D, `Answer`) or with `choices`."""
    return {
        "Question": text(row, "Question" if "Question" in row else "question"),
        **dict(zip("ABCD", options(row), strict=True)),
        "Answer": "ABCD"[letter(row["Answer"] if "Answer" in row else row["answer"])],
    }


def ceval(row: Row) -> Row:
    """C-Eval as published: `question`, A to D, `answer`."""
    return {
        "question": text(row, "question"),
        **dict(zip("ABCD", options(row), strict=True)),
        "answer": "ABCD"[letter(row["answer"])],
    }
