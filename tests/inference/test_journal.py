"""What was answered before a kill is not asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from growlm.inference.journal import Journal
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt


class Counted:
    """Answers by the length of what is asked, and counts it; of `x` it cannot say anything."""

    context = 8

    def __init__(self, identity: str = "a") -> None:
        self.identity = identity
        self.asked: list[Any] = []

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        for i in reversed(range(len(requests))):
            self.asked.append(requests[i])
            bad = requests[i].continuation == "x"
            yield i, Failed("x") if bad else Likelihood(-float(len(requests[i].context)), True, 1, 2)

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        for i, prompt in enumerate(requests):
            self.asked.append(prompt)
            yield i, Completion(prompt.text + "猫\n\u2028", prompt.max_tokens, "stop")


CHOICES = [Choice("ab", "c"), Choice("", "x"), Choice("ab", "c"), Choice("abc", "\n")]
PROMPTS = [Prompt("a", 3), Prompt("a", 3, seed=1), Prompt("a", 3, ("\n",))]


def test_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    first, second, other = Counted(), Counted(), Counted("b")
    expected = (dict(Counted().likelihoods(CHOICES)), dict(Counted().completions(PROMPTS)))
    for model in (first, second, other):
        journal = Journal(path, model)
        assert (dict(journal.likelihoods(CHOICES)), dict(journal.completions(PROMPTS))) == expected
        assert (journal.identity, journal.context) == (model.identity, 8)
        journal.close()
    assert len(first.asked) == len(other.asked) == 3 + 3  # of two that are the same one
    assert second.asked == [CHOICES[1]]  # what failed may succeed now


TAILS = [b'{"key": "ab', b"\xff\n\n[]\n", b'{"key": 3, "answer": null}\n{"k', b'{"key": "a", "answer": {}}']


@pytest.mark.parametrize("tail", TAILS)
def test_a_damaged_line_counts_for_nothing(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "answers.jsonl"
    with closing(Journal(path, Counted())) as journal:
        list(journal.completions(PROMPTS[:2]))
    with path.open("ab") as file:
        file.write(tail)
    for asked in (PROMPTS[2:], []):
        model = Counted()
        with closing(Journal(path, model)) as journal:
            assert len(dict(journal.completions(PROMPTS))) == 3
        assert model.asked == asked


KILLED = """
import os, signal, sys
from pathlib import Path
from growlm.inference.journal import Journal
from tests.inference.test_journal import PROMPTS, Counted
for index, answer in Journal(Path(sys.argv[1]), Counted()).completions(PROMPTS):
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path], cwd=root, env=os.environ | {"PYTHONPATH": str(root)}
    )
    assert done.returncode == -signal.SIGKILL
    assert len([json.loads(line) for line in path.read_bytes().splitlines()]) == 2
    model = Counted()
    found = dict(Journal(path, model).completions(PROMPTS))
    assert found == dict(Counted().completions(PROMPTS))
    assert model.asked == PROMPTS[2:]
