"""Rows of English sets, in any known format, as the columns that the harness's tasks read.

Every function takes a row as a file has it and raises ValueError, KeyError or TypeError if it cannot be that.
The columns are those of the sets on the Hugging Face hub, which the harness's prompts are written for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def text(row: Row, name: str) -> str:
    """A column that must be a string."""
    found = row[name]
    if not isinstance(found, str):
        raise TypeError(f"`{name}` is a {type(found).__name__}, not a string")
    return found


def texts(found: object, name: str) -> list[str]:
    """A list of strings."""
    if not isinstance(found, list) or not found or not all(isinstance(item, str) for item in found):
        raise TypeError(f"`{name}` is no list of strings")
    return found


def label(found: object, names: Sequence[str]) -> int:
    """The number of a label that is written as its name, its number, or true and false."""
    if isinstance(found, bool):
        found = str(found)
    if isinstance(found, str) and found.lower() in list(names):
        return names.index(found.lower())
    number = int(found) if isinstance(found, int | str) else -1
    if not 0 <= number < len(names):
        raise ValueError(f"the label is {found!r}, not one of {', '.join(names)} or 0 to {len(names) - 1}")
    return number


def letter(found: object, count: int = 4) -> int:
    """The number of an answer that is written A, B, ... or as a number."""
    return label(found, "abcdefghij"[:count])


def options(row: Row) -> list[str]:
    """The four answers, in one column or in A to D."""
    found = texts(row["choices"] if "choices" in row else [row[name] for name in "ABCD"], "choices")
    if len(found) != 4:
        raise ValueError(f"it has {len(found)} choices, not 4")
    return found


def arc(row: Row) -> Row:
    """ARC as on the hub, as AI2 published it (`stem`), or with a number for the answer (`query`, `gold`)."""
    if "query" in row:
        question = text(row, "query").removeprefix("Question: ").removesuffix("\nAnswer:")
        choices = texts(row["choices"], "choices")
        labels = list("ABCDE"[: len(choices)])
        key = labels[label(row["gold"], labels)]
    else:
        told = row["question"]
        question = text(told, "stem") if isinstance(told, dict) else text(row, "question")
        listed = told["choices"] if isinstance(told, dict) else row["choices"]
        if isinstance(listed, list):
            listed = {name: [choice[name] for choice in listed] for name in ("text", "label")}
        choices, labels = texts(listed["text"], "choices"), texts(listed["label"], "choices")
        key = text(row, "answerKey")
    if key not in labels or len(choices) != len(labels) or not 2 <= len(choices) <= 5:
        raise ValueError(
            f"the answer {key!r} is none of {', '.join(labels)}, or they do not fit {len(choices)} choices"
        )
    return {
        "id": str(row.get("id", "")),
        "question": question,
        "choices": {"text": choices, "label": labels},
        "answerKey": key,
    }


def arc_check(rows: list[Row]) -> str:
    """Some copies of ARC force four choices on every question."""
    if len(rows) > 1000 and set(Counter(len(row["choices"]["text"]) for row in rows)) == {4}:
        return "all rows have 4 choices; in the official set some have 3 or 5"
    return ""


def hellaswag(row: Row) -> Row:
    """HellaSwag as published and on the hub."""
    endings = texts(row["endings"], "endings")
    if len(endings) != 4:
        raise ValueError(f"it has {len(endings)} endings, not 4")
    return {
        **{name: text(row, name) for name in ("activity_label", "ctx_a", "ctx_b")},
        "endings": endings,
        "label": str(label(row["label"], "0123")),
    }


def mmlu(row: Row) -> Row:
    """MMLU as on the hub (`choices`, answer 0 to 3) or with columns A to D and the answer's letter."""
    return {
        "question": text(row, "question"),
        "choices": options(row),
        "answer": letter(row["answer"]),
    }


def truthfulqa(row: Row) -> Row:
    """TruthfulQA's multiple choice: targets as on the hub, or as objects of answer to 1 or 0.

    The right answer of MC1 comes first, as the harness expects.
    """
    found: Row = {"question": text(row, "question")}
    for name in ("mc1_targets", "mc2_targets"):
        told = row[name]
        if "labels" in told:
            choices, labels = texts(told["choices"], name), [label(item, "01") for item in told["labels"]]
        else:
            choices, labels = texts(list(told), name), [label(item, "01") for item in told.values()]
        if len(choices) != len(labels) or not 0 < sum(labels) < len(labels):
            raise ValueError(f"`{name}` needs choices with labels, some of them 1 and some 0")
        if name == "mc1_targets":
            if sum(labels) != 1:
                raise ValueError(f"`{name}` has {sum(labels)} right answers, not 1")
            order = sorted(range(len(labels)), key=lambda i: -labels[i])
            choices, labels = [choices[i] for i in order], [labels[i] for i in order]
        found[name] = {"choices": choices, "labels": labels}
    return found


def boolq(row: Row) -> Row:
    """BoolQ."""
    told = row["label"] if "label" in row else row["answer"]
    return {
        "question": text(row, "question"),
        "passage": text(row, "passage"),
        "label": label(told, ("false", "true")),
    }


def cb(row: Row) -> Row:
    """CommitmentBank."""
    return {
        "premise": text(row, "premise"),
        "hypothesis": text(row, "hypothesis"),
        "label": label(row["label"], ("entailment", "contradiction", "neutral")),
    }


def copa(row: Row) -> Row:
    """COPA."""
    if row["question"] not in ("cause", "effect"):
        raise ValueError(f"`question` is {row['question']!r}, not cause or effect")
    return {
        **{name: text(row, name) for name in ("premise", "choice1", "choice2", "question")},
        "label": label(row["label"], ("choice1", "choice2")),
    }


def multirc(row: Row) -> list[Row]:
    """MultiRC: one row for each answer; a published row is a passage with all its questions."""
    if "passage" not in row:
        idx = {name: int(row["idx"][name]) for name in ("paragraph", "question", "answer")}
        kept = {name: text(row, name) for name in ("paragraph", "question", "answer")}
        return [{**kept, "idx": idx, "label": label(row["label"], ("false", "true"))}]
    passage = row["passage"]
    return [
        {
            "paragraph": text(passage, "text"),
            "question": text(question, "question"),
            "answer": text(answer, "text"),
            "idx": {
                "paragraph": int(row["idx"]),
                "question": int(question["idx"]),
                "answer": int(answer["idx"]),
            },
            "label": label(answer["label"], ("false", "true")),
        }
        for question in passage["questions"]
        for answer in question["answers"]
    ]


def record(row: Row) -> list[Row]:
    """ReCoRD: one row for each query; a published row is a passage with all its queries."""
    if "qas" not in row:
        return [_query(text(row, "passage"), row["entities"], text(row, "query"), row["answers"])]
    passage = text(row["passage"], "text")
    entities = [passage[e["start"] : e["end"] + 1] for e in row["passage"]["entities"]]
    return [
        _query(passage, entities, text(qa, "query"), [text(answer, "text") for answer in qa["answers"]])
        for qa in row["qas"]
    ]


def _query(passage: str, entities: object, query: str, answers: object) -> Row:
    found = {"entities": texts(entities, "entities"), "answers": texts(answers, "answers")}
    return {"passage": passage, "query": query} | {name: sorted(set(each)) for name, each in found.items()}


def rte(row: Row) -> Row:
    """RTE, with the column names of SuperGLUE or of GLUE."""
    first, second = ("premise", "hypothesis") if "premise" in row else ("sentence1", "sentence2")
    return {
        "premise": text(row, first),
        "hypothesis": text(row, second),
        "label": label(row["label"], ("entailment", "not_entailment")),
    }


def wic(row: Row) -> Row:
    """WiC."""
    return {
        **{name: text(row, name) for name in ("word", "sentence1", "sentence2")},
        **{name: int(row[name]) for name in ("start1", "start2", "end1", "end2")},
        "label": label(row["label"], ("false", "true")),
    }


def wsc(row: Row) -> Row:
    """WSC; spans that are not in the text as they are written are mended as in the hub's `wsc.fixed`."""
    told = {**row, **row.get("target", {})}
    passage = text(told, "text")
    found: Row = {"text": passage, "label": label(row["label"], ("false", "true"))}
    for span in ("span1", "span2"):
        index, written = int(told[f"{span}_index"]), text(told, f"{span}_text")
        if written not in passage:
            first = passage.split()[index]
            start = written[:1].lower() if first[:1].islower() else written[:1].upper()
            written = (start + written[1:]).rstrip(".").replace("\n", " ")
        found[f"{span}_index"], found[f"{span}_text"] = index, written
    return found
