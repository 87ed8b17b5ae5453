"""What is said about two states of a prepared folder."""

from __future__ import annotations

import pytest

from growlm.data.changed import SHOWN, data_changes
from growlm.data.dataset import TokenDataset
from growlm.data.manifest import BLOCK_BYTES, Manifest, Shard, Source


@pytest.fixture
def then(dataset: TokenDataset) -> Manifest:
    return dataset.manifest


def with_source(manifest: Manifest, name: str, source: Source) -> Manifest:
    return manifest.model_copy(update={"sources": manifest.sources | {name: source}})


def with_shards(manifest: Manifest, name: str, shards: list[Shard]) -> Manifest:
    source = manifest.sources[name]
    tokens = sum(shard.tokens for shard in shards)
    split = source.splits["train"].model_copy(update={"shards": tuple(shards), "tokens": tokens})
    return with_source(manifest, name, source.model_copy(update={"splits": source.splits | {"train": split}}))


def test_sources_that_came_and_went(then: Manifest) -> None:
    en, zh = then.sources["en"], then.sources["zh"]
    now = then.model_copy(update={"sources": {"en": en, "ja": zh}})
    assert data_changes(then, now) == ["source zh is gone", "source ja is new"]


def test_the_first_block_that_differs_is_named_with_its_token(then: Manifest) -> None:
    itemsize = then.dtype_of("zh").itemsize
    large = Shard(
        file="zh/a.bin", tokens=3 * BLOCK_BYTES // itemsize, bytes=3 * BLOCK_BYTES, blocks=tuple("abc")
    )
    other = large.model_copy(update={"file": "zh/b.bin", "blocks": tuple("abX")})
    before, after = with_shards(then, "zh", [large, large]), with_shards(then, "zh", [large, other])
    token = large.tokens + 2 * BLOCK_BYTES // itemsize
    assert data_changes(before, after) == [
        f"zh train: {2 * large.tokens:,} tokens then, {2 * large.tokens:,} now; "
        f"zh/b.bin differs from block 2 on (token {token:,} of the source)"
    ]


def test_shards_that_were_added(then: Manifest) -> None:
    shards = list(then.sources["en"].splits["train"].shards)
    assert len(shards) > 1
    (line,) = data_changes(with_shards(then, "en", shards[:1]), then)
    assert f"{shards[0].tokens:,} tokens then, {sum(s.tokens for s in shards):,} now" in line
    assert f"1 shards then, {len(shards)} now, the first ones the same" in line


def test_only_the_notes_differ(then: Manifest) -> None:
    noted = then.sources["en"].model_copy(update={"licenses": {"CC0": 3}})
    now = with_source(then, "en", noted)
    assert now.fingerprint != then.fingerprint
    assert data_changes(then, now) == ["no token; only what the manifest says about the preparation"]


def test_the_list_is_short(then: Manifest) -> None:
    many = then.model_copy(update={"sources": {f"s{i}": then.sources["en"] for i in range(40)}})
    lines = data_changes(then, many)
    assert len(lines) == SHOWN + 1
    assert lines[-1] == f"and {42 - SHOWN} more"
