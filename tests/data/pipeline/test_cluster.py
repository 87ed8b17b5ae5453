from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from growlm.data.pipeline.cluster import Cluster
from growlm.data.pipeline.executors import executor_of
from growlm.data.prepare import prepare
from growlm.errors import DataError, RecipeError
from tests.data.pipeline.material import mixed
from tests.data.texts import english, folder_bytes, write_jsonl

pytest.importorskip("datatrove", reason="the extra `cluster` is not installed")


def datatrove_here() -> Cluster:
    from datatrove.executor import LocalPipelineExecutor

    return Cluster(partial(LocalPipelineExecutor, workers=1), is_running=lambda _: False)


def test_datatrove_writes_the_same_shards(tmp_path: Path):
    sources, options = mixed(tmp_path / "in")
    options |= {"cleaning": None, "part_bytes": 20_000, "shard_bytes": 20_000}
    prepare(tmp_path / "here", sources, **options)
    prepare(tmp_path / "there", sources, **options, executor=datatrove_here())
    assert folder_bytes(tmp_path / "there") == folder_bytes(tmp_path / "here")


def test_the_error_of_a_task_comes_back(tmp_path: Path):
    bad = write_jsonl(tmp_path / "bad.jsonl", english(20))
    bad.write_text(bad.read_text() + "{")
    with pytest.raises(DataError, match="not a JSON object"):
        prepare(tmp_path / "out", {"en": [bad]}, max_bad_rows=0, part_bytes=3000, executor=datatrove_here())


def test_options_of_a_cluster_are_checked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match="no executor 'cloud'"):
        executor_of("cloud", None, {})
    with pytest.raises(RecipeError, match="no cluster"):
        executor_of("local", None, {"time": "1"})
    with pytest.raises(RecipeError, match="The cluster's partition is not known"):
        executor_of("slurm", None, {"time": "1:00:00"})
    with pytest.raises(RecipeError, match="has no option 'colour'"):
        executor_of("slurm", None, {"time": "1:00:00", "partition": "cpu", "colour": "red"})
    with pytest.raises(DataError, match="needs the package ray") as caught:
        executor_of("ray", None, {})
    assert caught.value.fix == 'pip install "growlm[ray]"'
    assert executor_of("slurm", 4, {"time": "1:00:00", "partition": "cpu", "mem_per_cpu_gb": "4"})
