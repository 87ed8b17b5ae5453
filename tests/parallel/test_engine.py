"""What an engine owes its ranks beside equal numbers: groups that wait, one text, and memory given back."""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from growlm.parallel.world import NEVER, World
from growlm.plan.layout import Layout
from growlm.recipe.load import load_recipe
from growlm.testing.ranks import Ranks
from growlm.train.state import layout_of
from tests.model.tiny import config
from tests.parallel import mesh_jobs as jobs

MODEL = config("llama", n_layers=3).to_dict()
HSDP = {"dp": 4, "zero": 3, "replicas": 2}


@pytest.mark.parametrize("layout", [{"dp": 2, "tp": 2}, {"tp": 2, "pp": 2}, HSDP], ids=str)
def test_no_group_gives_up_before_the_watchdog(ranks: Ranks, layout: dict[str, Any]) -> None:
    told = ranks.run(jobs.timeouts, MODEL, asdict(Layout(**layout)))
    assert {seconds for rank in told for seconds in rank} == {NEVER.total_seconds()}


@pytest.mark.parametrize("layout", [{"dp": 2, "zero": 3}, {"tp": 2}, {"pp": 2}], ids=str)
def test_all_ranks_sample_what_rank_0_draws(ranks: Ranks, layout: dict[str, Any]) -> None:
    told = ranks.run(jobs.sampled, MODEL, asdict(Layout(**layout)), size=2)
    assert told == [["1 2 3 4 5", 5]] * 2


@pytest.mark.parametrize(
    "layout", [{"dp": 2, "zero": 3}, {"dp": 2, "zero": 1}, {"tp": 2}, {"pp": 2, "interleave": 1}], ids=str
)
def test_a_closed_engine_gives_its_memory_back_at_once(ranks: Ranks, layout: dict[str, Any]) -> None:
    """Growth needs it for the next model; FSDP and pipelines hold on to themselves."""
    assert ranks.run(jobs.alive, MODEL, asdict(Layout(**layout)), size=2) == [0, 0]


@pytest.mark.parametrize(("per_node", "tp"), [("", 8), ("8", 8), ("4", 4)])
def test_tensor_parallelism_stays_inside_a_machine(
    per_node: str, tp: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which has as many ranks as the launcher says."""
    gpu = SimpleNamespace(total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", per_node)
    recipe = load_recipe("flm-101b", ["stages.2.layout=auto"])
    assert layout_of(recipe, 2, World(0, 192, 0, torch.device("cuda"))).tp == tp
