"""The suite against an OpenAI-compatible endpoint on this machine."""

from __future__ import annotations

import threading
from itertools import chain
from pathlib import Path

import pytest

from growlm.evaluate.iq.asking import ask
from growlm.evaluate.iq.suite import plan
from growlm.evaluate.iq.task import Setup
from growlm.inference.endpoint import Endpoint
from growlm.inference.serve.server import Server
from tests.evaluate.iq.labelled import write_sets
from tests.inference.models import local


def test_an_endpoint_answers_as_the_model_behind_it(tmp_path: Path) -> None:
    model = local("llama", context=512, padding=0)  # an endpoint counts known tokens only
    setup = Setup(items=2, dials={"shots": 1, "length": 6}, data_dir=write_sets(tmp_path))
    planned = plan(["head_slicing", "replace_lowercase", "superglue_iq_wic"], setup)
    with Server(model, name="tiny", port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            served = ask(Endpoint(server.url), planned, quiet=True)
        finally:
            server.shutdown()
            thread.join()
    asked = ask(model, planned, quiet=True)
    for theirs, ours in zip(chain(*served), chain(*asked), strict=True):
        assert (theirs.text, theirs.unwritten + theirs.unweighed) == (ours.text, "")
        assert theirs.logprobs == (ours.logprobs and pytest.approx(ours.logprobs, abs=1e-4))
