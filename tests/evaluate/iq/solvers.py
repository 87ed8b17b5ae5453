"""Models that need no weights: one solves every task from the text of its prompt, one guesses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import xxhash

from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt

MARK = re.compile(r"\[(\w+)\]")
"""In made-up labelled rows: their label, for who can read."""
SYMBOL = re.compile(r"<[^<>\s]{8}>")


class Solver:
    """Writes what `solve` makes of a prompt; finds the choice likeliest that it would write."""

    context = 1 << 20

    def __init__(self, solve: Callable[[str], str], identity: str) -> None:
        self.solve, self.identity = solve, identity
        self.asked: list[Prompt | Choice] = []

    def completions(self, requests: Sequence[Prompt]) -> Iterator[tuple[int, Completion | Failed]]:
        for index, request in reversed(list(enumerate(requests))):
            self.asked.append(request)
            yield index, Completion(" " + self.solve(request.text), 1, "stop")

    def likelihoods(self, requests: Sequence[Choice]) -> Iterator[tuple[int, Likelihood | Failed]]:
        for index, request in reversed(list(enumerate(requests))):
            self.asked.append(request)
            right = self.solve(request.context) == request.continuation.strip()
            yield index, Likelihood(-1.0 if right else -2.0, right, 1)


def oracle() -> Solver:
    return Solver(solve, "oracle")


def guesser(seed: int = 0) -> Solver:
    return Solver(lambda prompt: guess(prompt, seed), f"guesser {seed}")


def solve(prompt: str) -> str:
    """The right answer, from the prompt alone."""
    for form, solver in _SOLVERS:
        if re.search(form, prompt):
            return solver(prompt)
    raise AssertionError(prompt)


def guess(prompt: str, seed: int) -> str:
    """One of the answers that a prompt allows for, or nonsense where it allows for too many."""
    symbols = sorted(set(SYMBOL.findall(prompt)))
    keys = sorted(_keys(prompt).values())
    places = ("厨房 浴室 卧室 花园 走廊 办公室" if "问题" in prompt else _PLACES).split()
    options = symbols or keys or (places if re.search("Where|哪里", prompt) else ["nonsense"])
    return options[xxhash.xxh64_intdigest(f"{seed} {prompt}".encode()) % len(options)]


_PLACES = "kitchen bathroom bedroom garden hallway office"


def _count(prompt: str) -> str:
    first, last = map(int, re.findall(r"(?:from|从) ?(\d+) ?(?:to|数到) ?(\d+)", prompt)[-1])
    shown = re.split("[:：]", prompt)[-1].count("，" if "数到" in prompt else ",")
    return ("，" if "数到" in prompt else ", ").join(map(str, range(first + shown, last + 1)))


def _replace(prompt: str) -> str:
    old, new, sentence = re.findall(r"\*\*(\w+)\*\*[^*]*\*\*(\w+)\*\*\n(?:Sentence: |句子：)(.*)\n", prompt)[
        -1
    ]
    return sentence.replace(old, new)


def _lower(prompt: str) -> str:
    return re.findall(r"(?:Text: |文本：)(.*)\n", prompt)[-1].lower()


def _pattern(prompt: str) -> str:
    *shown, asked = (line.partition(" ->") for line in prompt.split("\n"))
    pairs = [(text, answer.strip()) for text, _, answer in shown]
    (first, answer), text = pairs[0], asked[0]
    rules: list[Callable[[str], str]] = [lambda text: text * 2, lambda text: text[: len(answer)]]
    for at in range(len(answer) - len(first) + 1):
        if answer[at:].startswith(first):
            head, tail = answer[:at], answer[at + len(first) :]
            rules.append(lambda text, head=head, tail=tail: head + text + tail)
    fitting = [rule for rule in rules if all(rule(text) == answer for text, answer in pairs)]
    return {rule(text) for rule in fitting}.pop()


def _keys(prompt: str) -> dict[str, str]:
    return dict(re.findall(r"(?:pass key of )?([A-Z]{4})(?: is |的密钥是)([a-z0-9]+)[.。]", prompt))


def _key(prompt: str) -> str:
    return _keys(prompt)[re.findall("[A-Z]{4}", prompt)[-1]]


def _story(prompt: str) -> str:
    story, asked = re.findall(r"(?:Story: |故事：)(.*)\n(?:Question: |问题：)(.*)\n", prompt)[-1]
    if "在哪里" in asked:
        return _where(_chinese(story), asked.removesuffix("在哪里？"))
    return _where(_english(story), asked.removeprefix("Where is ").removesuffix("?").removeprefix("the "))


Facts = list[tuple[str, str, str]]
"""Who, did what (`go`, `take`, `drop`), to what or to which place."""


def _english(story: str) -> Facts:
    verbs = {"went": "go", "moved": "go", "journeyed": "go", "travelled": "go"}
    verbs |= {"picked": "take", "took": "take", "grabbed": "take"}
    verbs |= {"dropped": "drop", "put": "drop", "left": "drop"}
    words = [sentence.split() for sentence in story.rstrip(".").split(". ")]
    return [(each[0], verbs[each[1]], each[-1]) for each in words]


def _chinese(story: str) -> Facts:
    verbs = {"去了": "go", "走到了": "go", "来到了": "go", "拿起了": "take", "拿走了": "take"}
    verbs |= {"放下了": "drop", "丢下了": "drop"}
    form = re.compile(f"(小.)({'|'.join(verbs)})(.+)")
    found = [form.fullmatch(sentence) for sentence in story.rstrip("。").split("。")]
    return [(each[1], verbs[each[2]], each[3]) for each in found if each]


def _where(facts: Facts, asked: str) -> str:
    """Of a person: the last place he went to. Of a thing: its last holder's, until he put it down."""
    handled = [at for at, (_, _, what) in enumerate(facts) if what == asked]
    if not handled:
        return [where for who, did, where in facts if (who, did) == (asked, "go")][-1]
    holder, did, _ = facts[handled[-1]]
    seen = facts[: handled[-1]] if did == "drop" else facts
    return [where for who, did, where in seen if (who, did) == (holder, "go")][-1]


def _symbol(prompt: str) -> str:
    """The symbol behind the last shot whose label is the question's."""
    *shots, asked = prompt.split("\n\n")
    label = MARK.findall(asked)[-1]
    return next(SYMBOL.findall(shot)[-1] for shot in reversed(shots) if label in MARK.findall(shot))


_SOLVERS: list[tuple[str, Callable[[str], str]]] = [
    (SYMBOL.pattern, _symbol),
    (r"count from|数到", _count),
    (r"replace the specified word|换成目标词", _replace),
    (r"uppercase letters|大写字母", _lower),
    (r" ->$", _pattern),
    (r"pass key|密钥", _key),
    (r"Story: |故事：", _story),
]
