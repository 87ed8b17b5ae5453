"""What is asked is what lm-evaluation-harness asks with the hub's data, to the byte.

The hashes are the harness's own golden values (in its repository, tests/testdata/*-loglikelihood): SHA-256 of
all requests without examples, documents shuffled with seed 42. They are of older versions; where a prompt was
changed since, the change is undone before hashing.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable

import pytest

pytest.importorskip("lm_eval")

from growlm.evaluate.files import Folder
from growlm.evaluate.knowledge.ask import quietly, tasks_of
from growlm.evaluate.knowledge.benchmarks import BENCHMARKS
from growlm.evaluate.knowledge.sources import load
from tests.evaluate.knowledge.sets import SHARED

Requests = list[tuple[str, str]]


def as_now(asked: Requests) -> Requests:
    return asked


def yes_first(asked: Requests) -> Requests:
    return asked[::-1]


def one_space(asked: Requests) -> Requests:
    return [(context, continuation[1:]) for context, continuation in asked]


def other_comma(asked: Requests) -> Requests:
    return [
        (context.replace("True, False, or", "True, False or"), continuation)
        for context, continuation in asked
    ]


GOLDEN: dict[str, tuple[str, Callable[[Requests], Requests]]] = {
    "arc_challenge": ("41c34c96cca8ace661911d0033d630c554b283f5a3953bcdc50720ae6b00a9c1", as_now),
    "wic": ("403a08da05e4c44d7e3dd3358382a7ba489c41d223e24cd1a9ed82ef1a2d004b", yes_first),
    "copa": ("66276b9045b5300cba4b81340db06f674f031fa0b8883714ad0d03be464cd799", one_space),
    "cb": ("77b11f4348eb8a7f57faf95c531fda01ab4bf0e729f91a82451ed8e71ec8e66d", other_comma),
}
SLOW: dict[str, tuple[str, Callable[[Requests], Requests]]] = {
    "multirc": ("0e793bd6f637a70a04c6f2cda080188fc037961b2f909095fe63f7bdbc4a90c6", as_now),
    "boolq": ("6577e0d88572772ef08e64f624c0e3df0953286ae1f118ccef15623b59ffeabf", yes_first),
    "truthfulqa": ("1e07020e9cf41d46ed65312eb39d2b8e6599673d4f0d6b67c0d0eba0efb493bb", as_now),
    "arc_easy": ("ffa6e39a35a16299dcb015f17f986aaa598ad8b4840c4cebe0339a7042232741", as_now),
    "hellaswag": ("abb808c97d6529eda6c11067837a132c62d25cba0394d720f80cca6df9f7196e", as_now),
}


def requests(name: str) -> list[Requests]:
    """What is asked of each document, of all of a benchmark's tasks together."""
    loaded = load(BENCHMARKS[name], Folder(SHARED).find)
    assert loaded is not None
    documents: dict[int, Requests] = {}
    for task in sorted(tasks_of(loaded, 0)["tasks"].values(), key=lambda task: task.task_name):
        with quietly():
            task.build_all_requests(rank=0, world_size=1)
        for instance in task.instances:
            documents.setdefault(instance.doc_id, []).append(instance.args)
    return list(documents.values())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared evaluation sets are not here")
@pytest.mark.parametrize("name", [*GOLDEN, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_requests_hash_to_the_harness_s_golden_values(name: str) -> None:
    golden, as_then = {**GOLDEN, **SLOW}[name]
    documents = requests(name)
    random.Random(42).shuffle(documents)
    asked = [list(request) for document in documents for request in as_then(document)]
    assert hashlib.sha256(json.dumps(asked).encode()).hexdigest() == golden
