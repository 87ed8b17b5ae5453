from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from growlm.data.dataset import TokenDataset
from growlm.data.deal import Deal
from growlm.data.mixture import Mixture, Span
from growlm.data.permutation import key_of, permute, shuffled
from growlm.errors import DataError, RecipeError

EN = {"en": 1.0}
BOTH = {"en": 0.535, "zh": 0.465}
Drawn = dict[str, list[tuple[int, int]]]


def draws(mixture: Mixture, spans: list[Span]) -> Drawn:
    """(epoch, unit) of every source, in the order in which they are drawn over all spans."""
    found: Drawn = {name: [] for name in mixture.sources}
    for index, span in enumerate(spans):
        for step in range(span.steps):
            draw = mixture.units(index, step)
            for source, epochs, units in zip(draw.source, draw.epoch, draw.unit, strict=True):
                found[mixture.sources[source]] += zip(epochs.tolist(), units.tolist(), strict=True)
    return found


def assert_no_loss_no_repeat(dataset: TokenDataset, mixture: Mixture, found: Drawn) -> None:
    """Every epoch but the last has every unit exactly once; the last has none twice."""
    for source, pairs in found.items():
        units = (dataset.tokens(source, "train") - 1) // mixture.unit_tokens
        assert len(set(pairs)) == len(pairs)
        per_epoch = Counter(epoch for epoch, _ in pairs)
        assert [epoch for epoch, _ in pairs] == sorted(epoch for epoch, _ in pairs)
        for epoch, count in per_epoch.items():
            assert count == units or epoch == max(per_epoch)
        assert all(0 <= unit < units for _, unit in pairs)


span = st.builds(
    Span,
    steps=st.integers(0, 60),
    batch_size=st.integers(1, 24),
    seq_len=st.sampled_from([16, 32, 48, 64, 128]),
    weights=st.sampled_from([EN, BOTH, {"zh": 3.0, "en": 0.0}, {"zh": 2, "en": 1}, {"en": 0.001, "zh": 1}]),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(span, min_size=1, max_size=4), st.integers(0, 2**40))
def test_spans_together_lose_and_repeat_nothing(dataset: TokenDataset, spans: list[Span], seed: int):
    spans = [*spans, Span(1, 1, 16, BOTH)]
    mixture = Mixture(dataset, spans, seed)
    assert_no_loss_no_repeat(dataset, mixture, draws(mixture, spans))


def test_an_epoch_across_spans_holds_every_unit_once(dataset: TokenDataset):
    spans = [
        Span(9, 8, 16, BOTH),
        Span(7, 5, 64, EN),
        Span(40, 4, 32, {"zh": 1, "en": 3}),
        Span(99, 16, 48, BOTH),
    ]
    mixture = Mixture(dataset, spans, seed=3)
    found = draws(mixture, spans)
    assert_no_loss_no_repeat(dataset, mixture, found)
    for source, pairs in found.items():
        units = (dataset.tokens(source, "train") - 1) // 16
        assert sorted(unit for epoch, unit in pairs if epoch == 0) == list(range(units))
        assert mixture.dropped(source) == dataset.tokens(source, "train") - units * 16 <= 16


def test_every_token_is_a_target_once_an_epoch(dataset: TokenDataset):
    units = (dataset.tokens("en", "train") - 1) // 32
    stream = dataset.read("en", "train", 0, units * 32 + 1).astype(np.int64)
    spans = [Span(units, 1, 32, EN), Span(0, 1, 96, EN)]
    mixture = Mixture(dataset, spans, seed=1)
    batches = [mixture.batch(0, step)[:2] for step in range(units)]
    order = [int(mixture.units(0, step).unit[0, 0]) for step in range(units)]
    for unit, (x, y) in zip(order, batches, strict=True):
        np.testing.assert_array_equal(x[0], stream[unit * 32 : unit * 32 + 32])
        np.testing.assert_array_equal(y[0], stream[unit * 32 + 1 : unit * 32 + 33])
    targets = np.concatenate([y[0] for _, y in batches])
    np.testing.assert_array_equal(np.sort(targets), np.sort(stream[1:]))


@pytest.mark.parametrize("lengths", [(64, 16), (48, 16), (16, 16), (64, 32)])
def test_batches_are_the_units_that_were_drawn(dataset: TokenDataset, lengths: tuple[int, int]):
    length, unit = lengths
    spans = [Span(5, 3, 16, BOTH), Span(20, 6, length, BOTH), Span(1, 1, unit, EN)]
    mixture = Mixture(dataset, spans, seed=5)
    size = mixture.unit_tokens
    for step in range(20):
        x, y, *_ = mixture.batch(1, step)
        assert x.shape == y.shape == (6, length)
        assert x.dtype == y.dtype == np.int64
        draw = mixture.units(1, step)
        for row in range(6):
            for place, unit in enumerate(draw.unit[row].tolist()):
                ids = dataset.read(mixture.sources[draw.source[row]], "train", unit * size, size + 1)
                np.testing.assert_array_equal(x[row, place * size : (place + 1) * size], ids[:-1])
                np.testing.assert_array_equal(y[row, place * size : (place + 1) * size], ids[1:])


def test_sequences_as_long_as_a_chunk_are_contiguous_text(dataset: TokenDataset):
    spans = [Span(10, 4, 64, EN), Span(1, 1, 16, EN)]
    mixture = Mixture(dataset, spans, seed=2)
    for step in range(10):
        x, y, *_ = mixture.batch(0, step)
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 29)), max_size=12))
def test_a_batch_does_not_depend_on_what_was_asked_before(
    dataset: TokenDataset, questions: list[tuple[int, int]]
):
    spans = [Span(30, 7, 16, BOTH), Span(30, 50, 32, {"zh": 1}), Span(30, 9, 64, BOTH)]
    asked = Mixture(dataset, spans, seed=8)
    for question in questions:
        fresh = Mixture(dataset, spans, seed=8).batch(*question)
        for one, other in zip(asked.batch(*question)[:2], fresh[:2], strict=True):
            np.testing.assert_array_equal(one, other)


def test_later_spans_and_other_sources_do_not_change_earlier_batches(dataset: TokenDataset):
    spans = [Span(30, 7, 16, EN), Span(30, 9, 64, BOTH)]
    longer = [*spans, Span(5, 3, 32, BOTH)]
    for index, step in ((0, 3), (0, 29), (1, 0), (1, 29)):
        one, other = (Mixture(dataset, table, 8).batch(index, step)[0] for table in (spans, longer))
        np.testing.assert_array_equal(one, other)


def test_seeds_and_epochs_have_different_orders(dataset: TokenDataset):
    units = (dataset.tokens("en", "train") - 1) // 16
    spans = [Span(2, units, 16, EN)]
    orders = [Mixture(dataset, spans, seed).units(0, step).unit[:, 0] for seed in (1, 2) for step in (0, 1)]
    assert all(sorted(order) == list(range(units)) for order in orders)
    same = [np.mean(a == b) for i, a in enumerate(orders) for b in orders[:i]]
    assert max(same) < 0.05


def test_steps_outside_a_span_are_refused(dataset: TokenDataset):
    mixture = Mixture(dataset, [Span(3, 2, 16, EN)], seed=1)
    for step in (-1, 3):
        with pytest.raises(IndexError):
            mixture.batch(0, step)


weight = st.one_of(st.just(0.0), st.floats(1e-4, 1.0), st.integers(1, 9).map(float))


@settings(deadline=None, max_examples=60)
@given(st.lists(weight, min_size=1, max_size=6).filter(any), st.integers(0, 9))
def test_shares_never_drift_from_the_weights(weights: list[float], seed: int):
    names = [f"s{i}" for i in range(len(weights))]
    total = sum(weights)
    table = {
        name: value for name, value in zip(names, weights, strict=True) if value == 0 or value / total > 1e-3
    }
    if not any(table.values()):
        return
    deal = Deal(Span(1, 1, 1, table), names, key_of(seed))
    shares = np.array([table.get(name, 0.0) for name in names]) / sum(table.values())
    seen = np.zeros(len(names), np.int64)
    for block in range(5):
        source, ordinal = deal.sequences(block)
        for index in range(len(names)):
            mine = ordinal[source == index]
            np.testing.assert_array_equal(mine, seen[index] + np.arange(len(mine)))
        seen += np.bincount(source, minlength=len(names))
        assert np.abs(seen - shares * deal.block * (block + 1)).max() < 1 + 1e-6
    np.testing.assert_array_equal(deal.dealt(5 * deal.block), seen)


def test_a_long_run_in_presets_shares_stays_within_one_sequence():
    deal = Deal(Span(1, 1, 1, BOTH), ["en", "zh"], key_of(1))
    for count in (1, 100, 256, 10_007, 10**9, 10**12):
        assert abs(deal.dealt(count)[0] - 0.535 * count) < (2 if count % 256 == 0 else 40)
    per_block = [np.bincount(deal.sequences(b)[0])[0] for b in range(50)]
    assert set(per_block) == {136, 137}


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_permute_is_a_permutation(count: int, key: int):
    result = permute(np.arange(count), count, key_of(key))
    assert sorted(result.tolist()) == list(range(count))
    assert sorted(shuffled(count, key_of(key)).tolist()) == list(range(count))


def test_permute_goes_everywhere_evenly():
    for count in (2, 3, 5, 10):
        keys = np.concatenate([key_of(7, epoch) for epoch in range(4000)])
        for index in range(count):
            places = permute(np.full(4000, index), count, keys)
            expected = 4000 / count
            assert np.abs(np.bincount(places, minlength=count) - expected).max() < 6 * expected**0.5


def test_the_order_is_the_same_for_ever():
    """Frozen: a resumed run of an older version must go on with the same text."""
    assert permute(np.arange(10), 10, key_of(1, 2)).tolist() == [9, 4, 0, 2, 3, 1, 8, 7, 6, 5]
    assert shuffled(8, key_of(3)).tolist() == [1, 0, 7, 2, 6, 5, 3, 4]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"eng": 1.0}, r"no source 'eng'[\s\S]*did you mean 'en'"),
        ({"en": 0.0}, "All weights"),
        ({"en": -1.0, "zh": 2.0}, "weight of -1.0"),
        ({"en": float("nan")}, "weight of nan"),
        ({"en": 1e-9, "zh": 1.0}, "too small"),
    ],
)
def test_bad_weights_are_refused(dataset: TokenDataset, weights: dict[str, float], words: str):
    with pytest.raises(RecipeError, match=words):
        Mixture(dataset, [Span(1, 1, 16, EN), Span(1, 1, 16, weights)], seed=1)


def test_bad_spans_are_refused(dataset: TokenDataset):
    with pytest.raises(RecipeError, match=r"100 is not a multiple of 64[\s\S]*stages.1.seq_len"):
        Mixture(dataset, [Span(1, 1, 64, EN), Span(1, 1, 100, EN)], seed=1)
    with pytest.raises(RecipeError, match="no steps, sequences or tokens"):
        Mixture(dataset, [Span(1, 0, 64, EN)], seed=1)
    with pytest.raises(DataError, match="shorter than one unit"):
        Mixture(dataset, [Span(1, 1, 1 << 20, EN)], seed=1)


def test_real_text_of_two_languages(tmp_path: Path):
    """A prefix of the shared corpora, through everything."""
    import gzip
    from itertools import islice

    from growlm.data.prepare import prepare

    corpora = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "corpora"
    if not corpora.exists():
        pytest.skip("the shared corpora are not here")
    sources = {}
    for name, file in (("en", "en-books.jsonl.gz"), ("zh", "zh-modern.jsonl.gz")):
        with gzip.open(corpora / file, "rt", encoding="utf-8") as lines:
            (tmp_path / f"{name}.jsonl").write_text(
                "".join(islice(lines, 4 if name == "en" else 60)), "utf-8"
            )
        sources[name] = [tmp_path / f"{name}.jsonl"]
    prepare(tmp_path / "out", sources, vocab_size=1024, validation_share=0.05)
    dataset = TokenDataset.open(tmp_path / "out")
    dataset.verify()
    spans = [Span(4, 8, 128, BOTH), Span(4, 4, 256, BOTH)]
    mixture = Mixture(dataset, spans, seed=1)
    assert_no_loss_no_repeat(dataset, mixture, draws(mixture, spans))
