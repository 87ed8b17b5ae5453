"""The completions endpoint: what the openai client, the harness and our own Endpoint get from it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from growlm.data.tokenizer import Tokenizer
from growlm.errors import RecipeError
from growlm.inference.endpoint import Endpoint
from growlm.inference.local import Local
from growlm.inference.requests import Choice, Completion, Likelihood, Prompt
from growlm.inference.score import Asked
from growlm.inference.serve.server import LARGEST_BODY, Server
from growlm.inference.source import open_local
from tests.convert.checkpoints import TEXTS, random_decoder, save, small

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
    """A random model that sees 64 tokens, with a tokenizer that splits Chinese characters."""
    folder = tmp_path_factory.mktemp("served")
    save(random_decoder(small("flm")), folder, Tokenizer.train(TEXTS, 288))
    return open_local(folder, context=64, data=folder / "data", device="cpu")


@contextmanager
def serving(model: Local, **settings: Any) -> Iterator[Server]:
    with Server(model, name="tiny", port=0, **settings) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(model: Local) -> Iterator[Server]:
    with serving(model) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def post(server: Server, body: Any, path: str = "/v1/completions", **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer; `body` is JSON, or bytes as they are."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said


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
    assert (endpoint.context, endpoint.identity) == (64, f"endpoint {server.url}#tiny")
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


def test_requests_that_are_none(server: Server) -> None:
    assert post(server, b"{")[0] == 400
    assert post(server, b"[" * 100_000)[0] == 400
    assert post(server, b"\xff\xfe")[0] == 400
    assert post(server, ["a"])[0] == 400
    assert post(server, {"prompt": "A"}, path="/v1/nothing")[0] == 404
    assert post(server, {"prompt": "A"}, path="/v1/../etc/passwd")[0] == 404
    assert post(server, {"messages": []}, path="/v1/chat/completions")[1]["error"]["message"].startswith(
        "This server completes texts"
    )
    assert post(server, {"prompt": "A"}, **{"Content-Type": "text/plain"})[0] == 415
    assert post(server, {"prompt": "A"}, **{"Content-Length": "x"})[0] == 411


def test_only_this_machine_may_ask(server: Server) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:80", "[::2]", ""):
        assert post(server, {"prompt": "A"}, Host=host)[0] == 403
    assert post(server, {"prompt": "A", "max_tokens": 1}, Host="localhost:1")[0] == 200
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(RecipeError, match="cannot be used"):
        Server(server.model, name="other", port=server.server_address[1])


def test_a_body_that_is_too_large_is_not_read_to_its_end(server: Server) -> None:
    status, said = post(server, b" " * (LARGEST_BODY + 1))
    assert status == 413
    assert "larger than" in said["error"]["message"]


def slow(model: Local, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.05) -> list[int]:
    """Make the model take its time for every token; the list grows with each."""
    done: list[int] = []
    forward = model.decoder.forward

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        done.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.decoder, "forward", slowly)
    return done


LONG = {"prompt": "A", "max_tokens": 60, "temperature": 0, "stream": True}


def begin(server: Server) -> socket.socket:
    """A client that has asked for a long text and has seen it begin."""
    connection = socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20)
    data = json.dumps(LONG).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
    connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + data)
    assert connection.recv(1000).startswith(b"HTTP/1.0 200")
    return connection


def test_a_client_that_goes_away_stops_the_model(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    done = slow(model, monkeypatch)
    with serving(model) as server:
        begin(server).close()
        status, _ = post(server, {"prompt": "B", "max_tokens": 1})
        assert status == 200
    assert len(done) < 30


def test_a_full_line_says_when_to_come_again(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(model, monkeypatch)
    with serving(model, waiting=1) as server:
        running, waiting = begin(server), []
        thread = threading.Thread(
            target=lambda: waiting.append(post(server, {"prompt": "B", "max_tokens": 1}))
        )
        thread.start()
        time.sleep(0.3)
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
        connection.request("POST", "/v1/completions", json.dumps(LONG), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        answer.read()
        connection.close()
        running.close()
        thread.join()
        assert waiting[0][0] == 200


def test_time_is_limited_waiting_included(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    done = slow(model, monkeypatch)
    with serving(model, seconds=0.4) as server:
        status, said = post(server, {**LONG, "stream": False})
        assert (status, said["error"]["code"]) == (504, "timeout")
        running = begin(server)
        rest = b"".join(iter(lambda: running.recv(4096), b""))
        assert b"longer than 0.4 s" in rest
        assert b"[DONE]" not in rest
        running.close()
    assert len(done) < 30


def test_a_server_that_ends_says_so_to_those_who_wait(model: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    slow(model, monkeypatch)
    with serving(model) as server:
        running = begin(server)
    rest = b"".join(iter(lambda: running.recv(4096), b""))
    running.close()
    assert b"shutting down" in rest
