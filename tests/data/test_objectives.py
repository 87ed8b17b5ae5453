"""What a step learns: the marks of the data, the weights of the recipe, sources that take turns."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

from growlm.data.dataset import TokenDataset
from growlm.data.manifest import MARK, Kind, Manifest, Shard, Source, Split, TokenizerEntry
from growlm.data.mixture import Batch, Mixture, Span
from growlm.errors import RecipeError
from growlm.recipe.objectives import OBJECTIVES, ObjectivesTable

EOS, TRUE, FALSE = 0, 1, 2
MIXED = {"en": 5.0, "rte": 3.0, "chat": 2.0}


def objectives(**changes: object) -> ObjectivesTable:
    return ObjectivesTable(**changes)  # type: ignore[arg-type]


def examples(kind: Kind, count: int, rng: np.random.Generator) -> np.ndarray:
    """A signal is learnt, or an answer with its end."""
    parts = []
    for _ in range(count):
        text = rng.integers(10, 50, rng.integers(2, 9))
        if kind == "signals":
            parts.append([*text, MARK | rng.choice([TRUE, FALSE]), EOS])
        else:
            answer = rng.integers(10, 50, rng.integers(1, 5))
            parts.append([*text, *(answer | MARK), EOS | MARK])
    return np.concatenate(parts).astype(np.uint32)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    folder, rng = tmp_path_factory.mktemp("objectives"), np.random.default_rng(0)
    kinds: dict[str, Kind] = {"en": "text", "rte": "signals", "chat": "instructions"}
    sources = {}
    for name, kind in kinds.items():
        (folder / name).mkdir()
        splits = {}
        for split, size in (("train", 400), ("valid", 60)):
            text = rng.integers(10, 50, 20 * size).astype(np.uint16)
            ids = text if kind == "text" else examples(kind, size, rng)
            ids.tofile(folder / name / split)
            blocks = (xxhash.xxh3_64_hexdigest(ids.tobytes()),)
            shard = Shard(file=f"{name}/{split}", tokens=len(ids), bytes=ids.nbytes, blocks=blocks)
            splits[split] = Split(documents=size, bytes=ids.nbytes, tokens=len(ids), shards=(shard,))
        sources[name] = Source(kind=kind, files=1, duplicates=0, empty=0, splits=splits)
    tokenizer = TokenizerEntry(
        file="tokenizer.json", hash="", vocab_size=50, eos_id=EOS, signal_ids=(TRUE, FALSE)
    )
    manifest = Manifest(
        tokenizer=tokenizer, dtype="uint16", validation_share=0.1, text_cut_chars=0, sources=sources
    )
    return TokenDataset(folder, manifest)


def by_objective(batch: Batch, what: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of an array (B, T) by the objective of their sequence."""
    return {name: what[batch.objective == index] for index, name in enumerate(OBJECTIVES)}


def test_each_objective_learns_its_own_tokens(dataset: TokenDataset):
    mixture = Mixture(dataset, [Span(40, 10, 32, MIXED)], 1)
    seen = set()
    for step in range(40):
        batch = mixture.batch(0, step)
        assert batch.weights is not None
        assert batch.weights.mean(dtype=np.float64) == pytest.approx(1, rel=1e-6)
        learnt, targets = by_objective(batch, batch.weights > 0), by_objective(batch, batch.targets)
        assert learnt["language"].all()
        np.testing.assert_array_equal(learnt["teacher"], np.isin(targets["teacher"], (TRUE, FALSE)))
        of_answers = learnt["instruction"]
        assert of_answers.any(axis=1).all()
        assert not of_answers[targets["instruction"] == TRUE].any()
        counts = {name: int(rows.sum()) for name, rows in learnt.items() if rows.size}
        assert mixture.learnt_tokens(0, step) == counts
        assert len(np.unique(batch.weights[batch.weights > 0])) == 1
        seen |= counts.keys()
    assert seen == set(OBJECTIVES)


def test_the_answer_and_its_end_are_learnt_and_no_padding(dataset: TokenDataset):
    span = [Span(20, 4, 32, {"chat": 1.0})]
    answers, everything = (
        Mixture(dataset, span, 1, objectives(instruction_loss=loss)) for loss in ("answers", "all")
    )
    packing = dataset.packing("chat", "train", 32)
    for step in range(20):
        some, every = answers.batch(0, step), everything.batch(0, step)
        assert some.weights is not None
        assert every.weights is not None
        assert not ((some.weights > 0) & (every.weights == 0)).any()
        units = answers.units(0, step).unit[:, 0]
        np.testing.assert_array_equal((every.weights > 0).sum(1), packing.tokens[units] - 1)
        np.testing.assert_array_equal((some.weights > 0).sum(1), packing.learnt[units])


def test_weights_are_factors_on_the_tokens_of_an_objective(dataset: TokenDataset):
    weighed = Mixture(dataset, [Span(10, 16, 32, MIXED)], 1, objectives(teacher=8.0, instruction=0.5))
    for step in range(10):
        batch = weighed.batch(0, step)
        assert batch.weights is not None
        assert batch.weights.mean(dtype=np.float64) == pytest.approx(1, rel=1e-6)
        found = {name: rows[rows > 0] for name, rows in by_objective(batch, batch.weights).items()}
        means = {name: values.mean() for name, values in found.items() if values.size}
        for name, factor in (("teacher", 8.0), ("instruction", 0.5)):
            if name in means:
                assert means[name] / means["language"] == pytest.approx(factor, rel=1e-5)


def test_a_share_of_the_rows_has_the_weights_of_the_whole_batch(dataset: TokenDataset):
    mixture = Mixture(dataset, [Span(5, 12, 32, MIXED)], 1)
    whole, rows = mixture.batch(0, 3), np.array([7, 2, 11])
    for part, of_all in zip(mixture.batch(0, 3, rows), whole, strict=True):
        assert part is not None
        assert of_all is not None
        np.testing.assert_array_equal(part, of_all[rows])


def test_running_text_alone_needs_no_weights(dataset: TokenDataset):
    mixture = Mixture(dataset, [Span(5, 4, 32, {"en": 1.0, "rte": 0.0})], 1)
    assert mixture.batch(0, 0).weights is None
    assert set(mixture.drawn(0, 5)) == {"language"}


def test_turns_are_of_one_objective_and_come_evenly(dataset: TokenDataset):
    mixture = Mixture(dataset, [Span(200, 4, 32, MIXED, alternating=True)], 1)
    order = []
    for step in range(200):
        (objective,) = set(mixture.batch(0, step).objective.tolist())
        order.append(objective)
    for index, share in enumerate((0.5, 0.3, 0.2)):
        at = np.flatnonzero(np.array(order) == index)
        assert abs(len(at) - 200 * share) <= 1
        ahead = np.arange(1, len(at) + 1) - share * (at + 1)
        assert np.abs(ahead).max() <= 1.5
    longer = Mixture(dataset, [Span(300, 4, 32, MIXED, alternating=True)], 1)
    for step in (0, 57, 199):
        np.testing.assert_array_equal(longer.batch(0, step).tokens, mixture.batch(0, step).tokens)


@pytest.mark.parametrize("alternating", [False, True])
def test_what_was_drawn_is_counted(dataset: TokenDataset, alternating: bool):
    spans = [Span(17, 5, 32, MIXED, alternating), Span(9, 3, 64, MIXED)]
    mixture = Mixture(dataset, spans, 1)
    tokens = dict.fromkeys(OBJECTIVES, 0)
    units = dict.fromkeys(mixture.sources, 0)
    for index, span in enumerate(spans):
        for step in range(span.steps):
            batch, draw = mixture.batch(index, step), mixture.units(index, step)
            for objective in batch.objective.tolist():
                tokens[OBJECTIVES[objective]] += span.seq_len
            for source in draw.source.tolist():
                units[mixture.sources[source]] += span.seq_len // 32
            assert mixture.drawn(index, step + 1) == tokens
    expected = {name: count / mixture.learnt[name].units for name, count in units.items()}
    assert mixture.epochs(1, 9) == pytest.approx(expected)


def test_an_epoch_has_every_example_once(dataset: TokenDataset):
    units = len(dataset.packing("rte", "train", 32).start)
    mixture = Mixture(dataset, [Span(2 * units, 1, 32, {"rte": 1.0})], 1)
    for epoch in (0, 1):
        drawn = [int(mixture.units(0, epoch * units + i).unit[0, 0]) for i in range(units)]
        assert sorted(drawn) == list(range(units))


def test_held_out_examples_are_whole_and_marked(dataset: TokenDataset):
    tokens, targets, learnt, real = dataset.validation("rte", 32, 10**6)
    assert not (learnt & ~real).any()
    assert len(tokens) == len(dataset.packing("rte", "valid", 32).start)
    np.testing.assert_array_equal(learnt, np.isin(targets, (TRUE, FALSE)))
    assert learnt.sum() == 60


@pytest.mark.parametrize(
    ("sources", "where"),
    [({"en": "teacher"}, "en"), ({"rte": "instruction"}, "rte"), ({"rtw": "teacher"}, "rtw")],
)
def test_an_objective_must_fit_its_source(dataset: TokenDataset, sources: dict[str, str], where: str):
    with pytest.raises(RecipeError) as caught:
        Mixture(dataset, [Span(5, 4, 32, MIXED)], 1, objectives(sources=sources))
    assert caught.value.where == f"objectives.sources.{where}"
    assert caught.value.fix


def test_signals_can_be_read_as_language(dataset: TokenDataset):
    mixture = Mixture(dataset, [Span(5, 4, 32, {"rte": 1.0})], 1, objectives(sources={"rte": "language"}))
    batch, units = mixture.batch(0, 0), mixture.units(0, 0).unit[:, 0]
    assert batch.weights is not None
    lengths = dataset.packing("rte", "train", 32).tokens[units]
    np.testing.assert_array_equal((batch.weights > 0).sum(1), lengths - 1)
    assert set(mixture.drawn(0, 5)) == {"language"}
