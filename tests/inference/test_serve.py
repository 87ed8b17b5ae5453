"""The completions endpoint: what the openai client, the harness and our own Endpoint get from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from growlm.data.tokenizer import Tokenizer
from growlm.inference.endpoint import Endpoint
from growlm.inference.local import Local
from growlm.inference.requests import Choice, Completion, Likelihood, Prompt
from growlm.inference.score import Asked
from growlm.inference.serve.server import Server
from tests.convert.checkpoints import TEXTS, random_decoder, save, small
from tests.inference.served import post, serving, tiny

TEXT = "The river remembers 河流 and the mountain"
CHOICES = [
    Choice("The river", " remembers the mountain"),
    Choice("The river ", "crosses"),
    Choice("河流", " 山"),
    Choice("A lantern", " 🙂!"),
    *(Choice("It is", f" {n}") for n in range(8)),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return tiny(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(model: Local) -> Iterator[Server]:
    with serving(model) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def test_the_openai_client_gets_our_own_greedy_text(
    model: Local, server: Server, client: openai.OpenAI
) -> None:
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    ((_, own),) = model.completions([Prompt(TEXT, 20)])
    assert isinstance(own, Completion)
    whole = client.completions.create(model="tiny", prompt=TEXT, max_tokens=20, temperature=0)
    assert whole.choices[0].text == own.text
    assert whole.choices[0].finish_reason == own.finish
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == len(model.text.encode(TEXT))
    parts = list(
        client.completions.create(
            model="tiny",
            prompt=TEXT,
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(part.choices[0].text for part in parts[:-1]) == own.text
    assert parts[-2].choices[0].finish_reason == own.finish
    assert parts[-1].usage == whole.usage
    assert client.base_url == server.url + "/"


def test_stops_are_cut_off_also_where_they_come_in_pieces(model: Local, client: openai.OpenAI) -> None:
    ((_, own),) = model.completions([Prompt(TEXT, 24)])
    assert isinstance(own, Completion)
    stop = own.text[9:14]
    expected = own.text[: own.text.index(stop)]
    ask: dict[str, Any] = {
        "model": "tiny",
        "prompt": TEXT,
        "max_tokens": 24,
        "temperature": 0,
        "stop": [stop],
    }
    whole = client.completions.create(**ask).choices[0]
    assert (whole.text, whole.finish_reason) == (expected, "stop")
    parts = [part.choices[0] for part in client.completions.create(**ask, stream=True)]
    assert "".join(part.text for part in parts) == expected
    assert parts[-1].finish_reason == "stop"


def test_draws_follow_the_seed_and_each_choice_has_its_own(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "prompt": [TEXT, "A"], "max_tokens": 12, "n": 2}
    first, again, other = (
        [c.text for c in client.completions.create(**ask, seed=seed).choices] for seed in (1, 1, 5)
    )
    assert first == again != other
    assert len(set(first)) == 4
    ask["n"] = 1
    assert client.completions.create(**ask, seed=1).choices[1].text == first[2]
    greedy = client.completions.create(**ask | {"n": 2}, top_p=0.0, seed=3).choices  # pyright: ignore
    assert greedy[0].text == greedy[1].text
    for temperature in (0, 1e-310):
        cold = client.completions.create(**ask, temperature=temperature, seed=9).choices[0]
        assert cold.text == greedy[0].text


def test_prompts_may_be_ids(model: Local, client: openai.OpenAI) -> None:
    ids = model.text.encode(TEXT)
    texts = [
        [c.text for c in client.completions.create(model="tiny", prompt=prompt, temperature=0).choices]
        for prompt in (TEXT, [TEXT, TEXT], ids, [ids, ids])
    ]
    assert texts == [texts[0], texts[0] * 2] * 2


def test_logprobs_are_the_models(model: Local, client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt=TEXT, max_tokens=6, temperature=0, logprobs=2, echo=True
    ).choices[0]
    columns: Any = answer.logprobs
    assert answer.text.startswith(TEXT)
    assert columns.token_logprobs[0] is None
    prompt = model.text.encode(TEXT)
    for position, (logprob, tops) in enumerate(
        zip(columns.token_logprobs[1:], columns.top_logprobs[1:], strict=True), start=1
    ):
        assert len(tops) >= 2
        if position >= len(prompt):
            assert logprob == max(tops.values())
    ((_, own),) = model.score([Asked(prompt, len(prompt) - 1)])
    assert sum(columns.token_logprobs[1 : len(prompt)]) == pytest.approx(own.logprob, abs=1e-5)
    assert columns.text_offset == sorted(columns.text_offset)
    zeros = client.completions.create(model="tiny", prompt="A", max_tokens=0, logprobs=0, echo=True)
    assert zeros.choices[0].text == "A"


def test_an_endpoint_of_it_is_the_model(model: Local, server: Server) -> None:
    endpoint = Endpoint(server.url)
    assert endpoint.context == 64
    assert endpoint.identity == f"endpoint {server.url}#tiny {model.identity}"
    own, theirs = dict(model.likelihoods(CHOICES)), dict(endpoint.likelihoods(CHOICES))
    for index, expected in own.items():
        found = theirs[index]
        assert isinstance(found, Likelihood)
        assert isinstance(expected, Likelihood)
        assert (found.tokens, found.greedy) == (expected.tokens, expected.greedy)
        assert found.logprob == pytest.approx(expected.logprob, abs=1e-6 * expected.tokens)
    prompts = [Prompt(TEXT, 9, ("\n",)), Prompt("A", 5, temperature=0.7, top_p=0.9, seed=4)]
    assert dict(endpoint.completions(prompts)) == dict(model.completions(prompts))
    ((_, long),) = endpoint.completions([Prompt(TEXT * 9, 9)])
    assert "maximum context length is 64" in str(long)


def test_the_harness_gets_the_same_likelihoods(model: Local, server: Server, tmp_path: Path) -> None:
    pytest.importorskip("tenacity", reason="pip install 'lm-eval[api]'")
    from lm_eval.api.instance import Instance
    from lm_eval.models import openai_completions

    from growlm.train.exchange import export_checkpoint

    save(random_decoder(small("flm")), tmp_path / "run", Tokenizer.train(TEXTS, 288))
    export_checkpoint(
        tmp_path / "run",
        tmp_path / "hf",
        dialect="growlm",
        dtype="fp32",
        shard_bytes=1 << 30,
        data=tmp_path / "run" / "data",
    )
    api: Any = openai_completions.LocalCompletionsAPI
    harness = api(
        base_url=f"{server.url}/completions",
        model="tiny",
        tokenizer=str(tmp_path / "hf"),
        tokenizer_backend="huggingface",
        max_length=64,
    )
    asked = [
        Instance("loglikelihood", {}, (choice.context, choice.continuation), i)
        for i, choice in enumerate(CHOICES)
    ]
    found = harness.loglikelihood(asked, disable_tqdm=True)
    own = dict(model.likelihoods(CHOICES))
    for index, (logprob, greedy) in enumerate(found):
        expected = own[index]
        assert isinstance(expected, Likelihood)
        assert logprob == pytest.approx(expected.logprob, abs=1e-6 * expected.tokens)
        assert greedy == expected.greedy


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"max_tokens": 32, "prompt": "A" * 33}, "prompt"),
        ({"prompt": "long " * 100}, "prompt"),
        ({"prompt": [300]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [[1], "a", {}]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 33}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"seed": 0.5}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stream": 1}, "stream"),
        ({"presence_penalty": 1}, "presence_penalty"),
        ({"suffix": "end"}, "suffix"),
        ({"functions": []}, "functions"),
    ],
    ids=lambda change: str(change)[:40],
)
def test_what_cannot_be_done_is_refused_in_openais_form(
    model: Local, change: dict[str, Any], param: str
) -> None:
    with serving(model, max_tokens=32) as server:
        status, said = post(server, {"model": "tiny", "prompt": "A", "max_tokens": 3} | change)
        assert status == 400
        assert said["error"]["type"] == "invalid_request_error"
        assert said["error"]["param"] == param
        assert said["error"]["message"]


def test_what_asks_for_nothing_special_is_accepted(server: Server) -> None:
    neutral = {"best_of": 1, "presence_penalty": 0, "logit_bias": {}, "suffix": None, "user": "me"}
    assert post(server, {"prompt": "A", "max_tokens": 1, **neutral})[0] == 200
    with openai.OpenAI(base_url=server.url, api_key="none") as client, pytest.raises(openai.NotFoundError):
        client.completions.create(model="gpt", prompt="A")
