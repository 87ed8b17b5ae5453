"""The tasks of the IQ suite, one in a file."""

from __future__ import annotations

from growlm.evaluate.iq.task import Task
from growlm.evaluate.iq.tasks import (
    afqmc,
    boolq,
    cluewsc,
    counting,
    csl,
    full_repeating,
    head_slicing,
    head_tail,
    key_retrieval,
    ocnli,
    replace_lowercase,
    replace_word,
    rte,
    single_fact,
    two_facts,
    wic,
    wsc,
)

_ALL: tuple[Task, ...] = (
    *(boolq.TASK, wic.TASK, rte.TASK, wsc.TASK),
    *(afqmc.TASK, csl.TASK, ocnli.TASK, cluewsc.TASK),
    *(counting.TASK, replace_lowercase.TASK, replace_word.TASK),
    *(head_tail.TASK, full_repeating.TASK, head_slicing.TASK),
    *(key_retrieval.TASK, single_fact.TASK, two_facts.TASK),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
"""By name, in the order of the paper's tables 7 to 11."""
GROUPS = {
    "superglue_iq": "iq/superglue",
    "clue_iq": "iq/clue",
    "rules": "iq/rules",
    "patterns": "iq/patterns",
    "interference": "iq/interference",
}
"""The paper's five averages, and the tasks they are of."""
