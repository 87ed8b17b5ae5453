"""A model behind a server: what is asked, how answers are read, and what becomes of bad ones."""

from __future__ import annotations

import functools
import socket
import threading
import time
from itertools import count
from typing import Any

import pytest

from growlm.errors import EndpointError, RecipeError
from growlm.inference.client import Client
from growlm.inference.endpoint import Endpoint
from growlm.inference.requests import Choice, Completion, Failed, Likelihood, Prompt
from tests.inference.scripted import Reply, Scripted, scripted

FAST = functools.partial(Client, attempts=3, pause=0.001)


def endpoint(server: Scripted, **settings: Any) -> Endpoint:
    return Endpoint(server.url, client=FAST, **settings)


def text(said: str, finish: str = "stop", **more: Any) -> Reply:
    choice = {"index": 0, "text": said, "finish_reason": finish, "logprobs": None}
    return 200, {}, {"choices": [choice | more], "usage": {"completion_tokens": 3}}


def words(body: Any, *, bos: bool = False) -> Reply:
    """An echo of a model whose tokens are words with the space before them and cost their length each."""
    prompt: str = body["prompt"]
    pieces, at = [], 0
    while at < len(prompt):
        end = prompt.find(" ", at + 1)
        end = len(prompt) if end < 0 else end
        pieces.append(prompt[at:end])
        at = end
    pieces.append("!")  # the one token that is asked for
    values: list[float | None] = [-float(len(p)) for p in pieces]
    if bos:
        pieces, values = ["<s>", *pieces], [0.0, *values]
    offsets = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    tops = [{p: v or 0.0} if len(p) < 5 else {"other": -0.1} for p, v in zip(pieces, values, strict=True)]
    values[0] = None
    columns = {"tokens": pieces, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}
    return text(prompt + "!", "length", logprobs=columns)


def test_a_text_is_asked_for_as_it_is_given() -> None:
    prompt = Prompt("Once", 7, ("\n", ".", "a", "b", "c"), temperature=0.5, top_p=0.9, seed=3)
    with scripted(lambda _: text(" upon c time. More", "length")) as server:
        found = list(endpoint(server).completions([prompt]))
        assert found == [(0, Completion(" upon ", 3, "stop"))]
        assert server.asked[1] == (
            "/v1/completions",
            {"model": "tiny", "prompt": "Once", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "seed": 3}
            | {"stop": ["\n", ".", "a", "b"]},  # as many as OpenAI takes; the answer is cut at all
        )


@pytest.mark.parametrize("bos", [False, True])
def test_likelihoods_are_those_of_the_continuations_tokens(bos: bool) -> None:
    choices = [
        Choice("The river", " runs far"),
        Choice("The river ", "runs"),
        Choice("The river", " remembers"),
    ]
    with scripted(functools.partial(words, bos=bos)) as server:
        found = dict(endpoint(server, threads=1).likelihoods(choices))
    assert found == {
        0: Likelihood(-9.0, False, 2),
        1: Likelihood(-5.0, False, 1),
        2: Likelihood(-10.0, False, 1),
    }
    with scripted(functools.partial(words, bos=bos)) as server:
        found = dict(endpoint(server).likelihoods([Choice("", "To be"), Choice("It is", " so it")]))
    assert found[1] == Likelihood(-6.0, True, 2)
    assert found[0] == Likelihood(-5.0, True, 2) if bos else isinstance(found[0], Failed)


def test_many_are_under_way_at_once_and_each_gets_its_own_answer() -> None:
    together = threading.Barrier(4, timeout=10)

    def reply(body: Any) -> Reply:
        together.wait()
        return text(body["prompt"].upper())

    with scripted(reply) as server:
        prompts = [Prompt(f"p{n}", 3) for n in range(8)]
        found = dict(endpoint(server, threads=4).completions(prompts))
    assert {n: a.text for n, a in found.items() if isinstance(a, Completion)} == {
        n: f"P{n}" for n in range(8)
    }


@pytest.mark.parametrize(
    "bad",
    [
        (500, {}, {"error": {"message": "out of luck"}}),
        (429, {"Retry-After": "0"}, b"later"),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""),
        (200, {}, b"<html>"),
        (200, {}, b"[" * 100_000),
        (200, {}, ["no object"]),
        (200, {}, {"choices": []}),
        (200, {}, {"choices": [{"index": 0}]}),
        (200, {}, {"choices": [{"text": "half of a pair: \ud800"}]}),
        (200, {}, {"choices": [{"text": "a"}, {"text": "b"}]}),
        (200, {"Content-Length": "100"}, b"broken"),
    ],
    ids=lambda bad: str(bad)[:40],
)
def test_a_bad_answer_is_asked_for_again_and_then_counted(bad: Reply) -> None:
    turn = count()
    with scripted(lambda _: bad if next(turn) % 3 < 2 else text("good")) as server:
        found = list(endpoint(server).completions([Prompt("a", 3)]))
        assert found == [(0, Completion("good", 3, "stop"))]
    with scripted(lambda _: bad) as server:
        ((_, failed),) = endpoint(server).completions([Prompt("a", 3)])
        assert isinstance(failed, Failed)
        assert failed.why.endswith(", 3 times")
        assert len(server.asked) == 1 + 3


def test_retry_after_is_waited_for() -> None:
    times: list[float] = []

    def reply(_: Any) -> Reply:
        times.append(time.monotonic())
        return (503, {"Retry-After": "0.4"}, b"") if len(times) == 1 else text("good")

    with scripted(reply) as server:
        list(endpoint(server).completions([Prompt("a", 3)]))
    assert times[1] - times[0] >= 0.4


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("token_logprobs", float("nan")),
        ("token_logprobs", 3.0),
        ("token_logprobs", "x"),
        ("token_logprobs", float("-inf")),
        ("text_offset", 99),
        ("text_offset", 0.5),
        ("top_logprobs", None),
    ],
)
def test_likelihoods_that_cannot_be_are_no_answer(column: str, value: Any) -> None:
    def reply(body: Any) -> Reply:
        status, headers, said = words(body)
        if "far" in body["prompt"]:
            said["choices"][0]["logprobs"][column][2] = value
        return status, headers, said

    with scripted(reply) as server:
        found = dict(endpoint(server).likelihoods([Choice("The river", " runs far"), Choice("a", " b")]))
    assert isinstance(found[0], Failed)
    assert found[1] == Likelihood(-2.0, True, 1)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (text(" sea"), "does not repeat the prompt"),
        (text("The river runs to the sea.!"), "gives no logprobs"),
        ((400, {}, {"error": {"message": "echo is not supported"}}), "echo is not supported"),
    ],
)
def test_a_server_without_likelihoods_is_asked_once(reply: Reply, why: str) -> None:
    with scripted(lambda _: reply) as server:
        model = endpoint(server)
        found = dict(model.likelihoods([Choice("a", " b")] * 20))
        assert all(isinstance(answer, Failed) and why in answer.why for answer in found.values())
        assert len(found) == 20
        assert len(server.asked) == 2


def test_a_refusal_is_said_with_the_servers_words_and_not_repeated() -> None:
    refusal = (400, {}, {"error": {"message": "65 tokens are too many\x1b[2J"}})
    with scripted(lambda _: refusal) as server:
        found = list(endpoint(server).completions([Prompt("long", 3)]))
        assert found == [(0, Failed("HTTP 400: 65 tokens are too many [2J"))]
        assert len(server.asked) == 2


def test_nobody_there_is_one_error_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(EndpointError, match="No server answers") as raised:
            Endpoint(url)
        assert url in raised.value.where


def test_half_of_a_surrogate_pair_is_the_servers_to_refuse() -> None:
    refusal = (400, {}, {"error": {"message": "no such character: \ud800"}})
    with scripted(lambda _: refusal) as server:
        ((_, failed),) = endpoint(server).completions([Prompt("\ud800", 3)])
        assert server.asked[1][1]["prompt"] == "\ud800"
    assert failed == Failed("HTTP 400: no such character:  ")


def test_a_server_that_goes_away_stops_the_evaluation() -> None:
    with scripted(lambda _: text("good")) as server:
        model = endpoint(server)
    server.server_close()
    with pytest.raises(EndpointError, match="No server answers"):
        list(model.completions([Prompt("a", 3)] * 1000))


@pytest.mark.parametrize("status", [401, 403, 404, 307, 308])
def test_what_all_requests_would_run_into_is_one_error(status: int) -> None:
    with scripted(lambda _: text("the other host")) as other:
        headers = {"Location": f"{other.url}/completions"}
        with scripted(lambda _: (status, headers, b"{}")) as server:
            with pytest.raises(EndpointError, match="refuses"):
                list(endpoint(server).completions([Prompt("a", 3)] * 100))
            assert len(server.asked) < 20
        assert other.asked == []


def test_the_model_is_named_or_the_only_one() -> None:
    with scripted(lambda _: text("")) as server:
        assert endpoint(server).identity == f"endpoint {server.url}#tiny"
        assert endpoint(server).context == 64
        assert endpoint(server, context=16).context == 16
        assert Endpoint(server.url + "/completions#tiny").identity == endpoint(server).identity
        with pytest.raises(EndpointError, match="no model 'big'"):
            Endpoint(server.url + "#big")
    with Scripted(lambda *_: (404, {}, b"")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        with pytest.raises(RecipeError, match="which models"):
            Endpoint(server.url)
        with pytest.raises(RecipeError, match="how many tokens") as raised:
            Endpoint(server.url, name="any")
        assert "--context" in raised.value.fix
        assert Endpoint(server.url, name="any", context=8).context == 8
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "url", ["ftp://a/v1", "http://", "http:///v1", "http://a b/", "http://u:secret@a/v1", "http://a:x/v1"]
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Endpoint(url)
    assert "secret" not in str(raised.value)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROWLM_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with scripted(lambda _: (401, {}, b"{}")) as server:
        model = endpoint(server)
        with pytest.raises(EndpointError) as raised:
            list(model.completions([Prompt("a", 3)]))
        assert "sk-1" not in str(raised.value) + model.identity
        assert set(server.keys) == {"Bearer sk-1"}
        monkeypatch.setenv("GROWLM_API_KEY", "sk-2")
        endpoint(server)
        assert server.keys[-1] == "Bearer sk-2"
    monkeypatch.delenv("GROWLM_API_KEY")
    assert "Authorization" not in Client("http://far.example/v1")._headers  # in clear it goes nowhere else
    assert Client("https://far.example/v1")._headers["Authorization"] == "Bearer sk-1"
