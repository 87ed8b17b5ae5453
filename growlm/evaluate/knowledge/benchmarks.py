"""The sets: which tasks of lm-evaluation-harness they are, with how many examples, of how many rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from growlm.errors import RecipeError
from growlm.evaluate.knowledge import chinese, english
from growlm.evaluate.knowledge.subjects import CEVAL, CMMLU, MMLU
from growlm.recipe.keys import did_you_mean

Row = dict[str, Any]
Rows = list[Row]

OPEN_LLM = "open-llm"


@dataclass(frozen=True)
class Benchmark:
    """A set of questions."""

    name: str
    """What `--task` takes."""
    group: str
    """The table that its scores stand in."""
    tasks: Mapping[str, str]
    """The harness's task of each score: `truthfulqa_mc2` of `truthfulqa_mc2`. Of subjects: see `subjects`."""
    metrics: tuple[str, ...]
    """The harness's, the one that counts first."""
    split: str
    """The split that is asked, by the harness's name."""
    files: tuple[str, ...]
    """What its files are called, without the split."""
    convert: Callable[[Row], Rows]
    """A row of any known format in the harness's columns, as none, one or many rows."""
    official: Mapping[int, str]
    """Numbers of rows that are official; the text says which edition, empty for the only one."""
    shots: int = 0
    """Of the Open LLM Leaderboard (first version) and of the sets' papers."""
    examples: tuple[str, ...] = ("train",)
    """The splits that examples are taken from, the first that is there."""
    subjects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Subjects with their categories."""
    task_of: str = ""
    """The harness's task of a subject: `mmlu_{}`."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """What of the harness's task is wrong and set right; `remark` says so beside every score."""
    remark: str = ""
    check: Callable[[Rows], str] = lambda _: ""
    """What is known to be wrong with copies of it; empty if it is not."""

    def harness_tasks(self) -> list[str]:
        """The harness's tasks, of one subject each where there are subjects."""
        if self.subjects:
            return [self.task_of.format(subject) for subject in self.subjects]
        return list(self.tasks)


def _superglue(name: str, task: str, rows: int, convert: Callable[[Row], Row], *metrics: str) -> Benchmark:
    return Benchmark(
        name=name,
        group="superglue",
        tasks={task: name},
        metrics=metrics or ("acc",),
        split="validation",
        files=(name,),
        convert=lambda row: [convert(row)],
        official={rows: ""},
    )


def _clue(name: str, convert: Callable[[Row], Rows], official: dict[int, str], *files: str) -> Benchmark:
    return Benchmark(
        name=name,
        group="clue",
        tasks={f"clue_{name}": name},
        metrics=("acc", "acc_norm"),
        split="validation",
        files=(name, *files),
        convert=convert,
        official=official,
    )


def _arc(level: str, rows: int, group: str) -> Benchmark:
    return Benchmark(
        name=f"arc_{level}",
        group=group,
        tasks={f"arc_{level}": f"arc_{level}"},
        metrics=("acc_norm", "acc"),
        split="test",
        files=(f"arc-{level}",),
        convert=lambda row: [english.arc(row)],
        official={rows: ""},
        shots=25,
        examples=("train", "validation"),
        check=english.arc_check,
    )


def _exam(
    name: str,
    split: str,
    rows: int,
    subjects: Mapping[str, tuple[str, ...]],
    task: str,
    convert: Callable[[Row], Row],
    remark: str = "",
) -> Benchmark:
    return Benchmark(
        name=name,
        group=OPEN_LLM if name == "mmlu" else name,
        tasks={},
        metrics=("acc",),
        split=split,
        files=(name, f"{name}-all", f"{name}-exam"),
        convert=lambda row: [convert(row)],
        official={rows: ""},
        shots=5,
        examples=("dev",),
        subjects=subjects,
        task_of=task,
        remark=remark,
    )


_ALL = (
    _arc("challenge", 1172, OPEN_LLM),
    Benchmark(
        name="hellaswag",
        group=OPEN_LLM,
        tasks={"hellaswag": "hellaswag"},
        metrics=("acc_norm", "acc"),
        split="validation",
        files=("hellaswag", "hellaswag-data"),
        convert=lambda row: [english.hellaswag(row)],
        official={10042: ""},
        shots=10,
    ),
    _exam("mmlu", "test", 14042, MMLU, "mmlu_{}", english.mmlu),
    Benchmark(
        name="truthfulqa",
        group=OPEN_LLM,
        tasks={"truthfulqa_mc2": "truthfulqa_mc2", "truthfulqa_mc1": "truthfulqa_mc1"},
        metrics=("acc",),
        split="validation",
        files=("truthfulqa-mc-task", "mc-task", "truthfulqa", "multiple-choice"),
        convert=lambda row: [english.truthfulqa(row)],
        official={817: "", 790: "the edition of 2025"},
    ),
    _arc("easy", 2376, "knowledge"),
    _superglue("boolq", "boolq", 3270, english.boolq),
    _superglue("cb", "cb", 56, english.cb, "acc", "f1"),
    _superglue("copa", "copa", 100, english.copa),
    Benchmark(
        name="multirc",
        group="superglue",
        tasks={"multirc": "multirc"},
        metrics=("acc", "exact_match"),
        split="validation",
        files=("multirc",),
        convert=english.multirc,
        official={4848: ""},
        changes={
            "doc_to_target": "{{1 - label}}"
        },  # its choices are yes, no, and the label of a right answer is 1
        remark="lm-evaluation-harness 0.4.13 counts right answers as wrong here: its own acc is 1 - acc",
    ),
    Benchmark(
        name="record",
        group="superglue",
        tasks={"growlm_record": "record"},
        metrics=("em", "f1"),
        split="validation",
        files=("record",),
        convert=english.record,
        official={10000: ""},
    ),
    _superglue("rte", "sglue_rte", 277, english.rte),
    _superglue("wic", "wic", 638, english.wic),
    _superglue("wsc", "wsc", 104, english.wsc),
    _clue("afqmc", chinese.afqmc, {4316: ""}),
    _clue("csl", chinese.csl, {2838: "the public test set of FewCLUE", 3000: "CLUE's development set"}),
    _clue("ocnli", chinese.ocnli, {2520: "the public test set of FewCLUE", 2950: "CLUE's development set"}),
    _clue(
        "cluewsc2020",
        chinese.cluewsc,
        {976: "the public test set of FewCLUE", 304: "CLUE's development set"},
        "cluewsc",
    ),
    _exam("cmmlu", "test", 11582, CMMLU, "cmmlu_{}", chinese.cmmlu),
    _exam(
        "ceval",
        "val",
        1346,
        CEVAL,
        "ceval-valid_{}",
        chinese.ceval,
        remark="of the validation set; published values are of the test set, whose answers are not public",
    ),
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in _ALL}
SUITES = {
    OPEN_LLM: ("arc_challenge", "hellaswag", "mmlu", "truthfulqa"),
    "superglue": tuple(b.name for b in _ALL if b.group == "superglue"),
    "clue": tuple(b.name for b in _ALL if b.group == "clue"),
}
"""Names for several at once."""


def chosen(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of these names and suites, all for none. Raises RecipeError: no such name."""
    found: dict[str, Benchmark] = {}
    for name in names or BENCHMARKS:
        if name not in BENCHMARKS and name not in SUITES:
            raise _unknown(name)
        found.update({each: BENCHMARKS[each] for each in SUITES.get(name, (name,))})
    return list(found.values())


def _unknown(name: str) -> RecipeError:
    known = [*BENCHMARKS, *SUITES]
    near = did_you_mean(name, known) or did_you_mean(name.replace("-", "_"), known)
    return RecipeError(
        f"There is no benchmark {name!r}",
        where="--task",
        why=f"did you mean {near!r}?" if near else "",
        fix=f"one of {', '.join(known)}",
    )
