"""A small model behind our server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from growlm.data.tokenizer import Tokenizer
from growlm.inference.local import Local
from growlm.inference.serve.server import Server
from growlm.inference.source import open_local
from tests.convert.checkpoints import TEXTS, random_decoder, save, small
from tests.inference.scripted import running


def tiny(folder: Path) -> Local:
    """A random model that sees 64 tokens, with a tokenizer that splits Chinese characters."""
    save(random_decoder(small("flm")), folder, Tokenizer.train(TEXTS, 288))
    return open_local(folder, context=64, data=folder / "data", device="cpu")


@contextmanager
def serving(model: Local, **settings: Any) -> Iterator[Server]:
    """A server of a model, running."""
    with Server(model, name="tiny", port=0, **settings) as server, running(server):
        yield server


def post(server: Server, body: Any, path: str = "/v1/completions", **headers: str) -> tuple[int, Any]:
    """Status and JSON of an answer; `body` is JSON, or bytes as they are."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    return answer.status, said
