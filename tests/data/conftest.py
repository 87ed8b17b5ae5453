from pathlib import Path

import pytest

from growlm.data.dataset import TokenDataset
from growlm.data.prepare import prepare
from tests.data.texts import chinese, english, write_jsonl


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two sources in several shards; tests that damage it copy it."""
    folder = tmp_path_factory.mktemp("data")
    en = write_jsonl(folder / "en.jsonl", english(60))
    zh = write_jsonl(folder / "zh.jsonl", chinese(40))
    prepare(folder / "out", {"en": [en], "zh": [zh]}, vocab_size=400, validation_share=0.1, shard_bytes=6000)
    return folder / "out"


@pytest.fixture(scope="session")
def dataset(prepared: Path) -> TokenDataset:
    return TokenDataset.open(prepared)
