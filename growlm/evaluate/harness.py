"""A model as lm-evaluation-harness wants it, so that its tasks can be run on any model of ours.

`lm_eval.simple_evaluate(model=HarnessModel(model), ...)`; and once this module is imported the harness knows
the name: `lm_eval --model growlm --model_args pretrained=FOLDER`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from growlm.data.extra import extra
from growlm.data.progress import Progress
from growlm.errors import DataError
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Model, Prompt

extra("lm_eval", "lm-evaluation-harness", "eval")

from lm_eval.api.model import LM  # noqa: E402
from lm_eval.api.registry import register_model  # noqa: E402
from lm_eval.models.utils import normalize_gen_kwargs  # noqa: E402

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from growlm.inference.source import Precision

IMPOSSIBLE = float("-inf")
"""The log-likelihood of what a model did not answer."""

R = TypeVar("R", Choice, Prompt)
A = TypeVar("A", Likelihood, Completion)


class HarnessModel(LM):
    """Asks a `Model` what the harness asks; one process, whichever way the model itself is spread."""

    def __init__(
        self,
        model: Model | None = None,
        *,
        pretrained: str = "",
        context: int | None = None,
        precision: Precision = "auto",
        device: str | None = None,
        workers: int = 1,
        batch_size: object = None,
        max_batch_size: object = None,
    ) -> None:
        """Around `model`, or around what `open_model` makes of the rest, which is for `--model_args`.

        Batches are sized by their tokens: `batch_size` and `max_batch_size` are taken and do nothing.
        """
        super().__init__()
        del batch_size, max_batch_size
        if model is None:
            from growlm.inference.source import open_model

            model = open_model(
                pretrained, context=context, precision=precision, device=device or "auto", workers=workers
            )
        self.model = model
        self.answers: dict[Choice | Prompt, Likelihood | Completion | Failed] = {}
        """All that was answered."""
        self.progress = ""
        """What its progress on stderr is called; without a name there is none."""
        self._stderr = sys.stderr  # the harness's own is not wanted, and may be somewhere else by then

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-likelihood, whether it is what greedy decoding gives) of each (context, continuation)."""
        asked = [Choice(*request.args) for request in requests]
        self._ask(asked, self.model.likelihoods)
        return [
            (answer.logprob, answer.greedy) if isinstance(answer, Likelihood) else (IMPOSSIBLE, False)
            for answer in map(self.answers.__getitem__, asked)
        ]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Log-likelihood of each whole text, in windows as long as the context where it does not fit."""
        rolling = getattr(self.model, "rolling", None)
        if rolling is None:
            raise DataError(
                "This model does not say how likely a whole text is",
                where="loglikelihood_rolling",
                fix="give a folder; an endpoint only answers with continuations",
            )
        found = dict(rolling([request.args[0] for request in requests]))
        return [_logprob(found[i]) for i in range(len(requests))]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """How the model goes on with each text, up to the first of `until`; of no answer the empty text."""
        seen: Counter[tuple[str, str]] = Counter()
        asked = []
        for request in requests:
            text, settings = cast(tuple[str, dict[str, Any]], request.args)
            key = (text, repr(settings))
            asked.append(_prompt(text, settings, seed=seen[key]))
            seen[key] += 1
        self._ask(asked, self.model.completions)
        answers = map(self.answers.__getitem__, asked)
        return [answer.text if isinstance(answer, Completion) else "" for answer in answers]

    def _ask(
        self, asked: Sequence[R], method: Callable[[Sequence[R]], Iterator[tuple[int, A | Failed]]]
    ) -> None:
        """Ask each request that was not answered yet, once. Sampling with another seed is another request."""
        new = [request for request in dict.fromkeys(asked) if request not in self.answers]
        progress = Progress(quiet=not self.progress, stream=self._stderr)
        with progress.task(self.progress, len(new), "requests") as advance:
            for index, answer in method(new):
                self.answers[new[index]] = answer
                advance(1)


def _prompt(text: str, settings: dict[str, Any], seed: int) -> Prompt:
    """A request to generate, by the harness's settings; their defaults are those of its own models."""
    told: dict[str, Any] = dict(normalize_gen_kwargs(settings))
    temperature = float(told.get("temperature", 0.0)) if told["do_sample"] else 0.0
    if told["do_sample"] and not settings.get("temperature"):
        temperature = 1.0
    return Prompt(
        text=text,
        max_tokens=told["max_gen_toks"],
        stop=tuple(stop for stop in told["until"] if stop),
        temperature=temperature,
        top_p=float(told.get("top_p", 1.0)),
        seed=seed if temperature else 0,
    )


def _logprob(answer: Likelihood | Failed) -> float:
    return answer.logprob if isinstance(answer, Likelihood) else IMPOSSIBLE


register_model("growlm")(HarnessModel)
