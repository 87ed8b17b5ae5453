"""A run that starts from weights that are there: a checkpoint, a grown one, a Hugging Face folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from growlm.checkpoint.store import Checkpoint
from growlm.convert.companions import companions_of
from growlm.convert.dialects import DIALECTS
from growlm.convert.write import write_folder
from growlm.data.prepare import SourceOptions, prepare
from growlm.data.tokenizer import SIGNALS
from growlm.errors import CheckpointError, DriftError, RecipeError
from growlm.growth.weights import MemoryWeights
from growlm.model.decoder import Decoder
from growlm.recipe.schema import Recipe
from growlm.testing.tiny import write_corpus
from growlm.train.exchange import export_checkpoint, import_folder
from growlm.train.initial import Initial, find_initial
from growlm.train.offline import grow_offline
from growlm.train.restore import find_checkpoint
from growlm.train.session import open_data
from growlm.train.state import MODEL_FILE, OPTIMIZER_FILE, TrainState
from growlm.train.supervisor import run
from tests.train.conftest import MakeRecipe
from tests.train.helpers import (
    ALONE,
    ONE_STAGE,
    killed,
    messages,
    newest,
    outcome,
    records,
    steps,
    straight_run,
)

MASKED = (
    "stages=[{name = 'on', d_model = 24, n_heads = 4, n_kv_heads = 2, d_ff = 48, n_layers = 2,"
    " tokens = 1280, seq_len = 32, batch_size = 4}]"
)
"""Ten steps of the shape of the tiny recipe's second stage."""

IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
LINEAGE = {
    "step": 5, "from": {"n_layers": 1, "d_model": 16}, "to": {"n_layers": 2, "d_model": 24},
    "operator": "clone", "depth": "stack",
    "certificate": {"exact": True, "kind": "full", "precision": "fp32", "max_dlogit": 1e-6, "dloss": 2e-7}
}  # fmt: skip


@pytest.fixture(scope="module")
def earlier(recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two stages, with a growth by masks between them."""
    folder = tmp_path_factory.mktemp("earlier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.train.supervisor.peak_tflops", lambda *_: 1.0)
        run(recipe(stages(recipe(), slice(2)), "checkpoint.keep=9"), folder)
    return folder


def stages(tiny: Recipe, chosen: slice) -> str:
    """Some stages of the tiny recipe, as an override."""
    tables = [stage.model_dump(exclude_none=True) for stage in tiny.stages[chosen]]
    if chosen.start:
        tables[0].pop("growth")
    return "stages=[" + ", ".join(map(_inline, tables)) + "]"


def _inline(table: dict[str, object]) -> str:
    pairs = (f"{k} = {_inline(v) if isinstance(v, dict) else json.dumps(v)}" for k, v in table.items())
    return "{" + ", ".join(pairs) + "}"


def initial(recipe: Recipe) -> Initial:
    found = find_initial(recipe, open_data(recipe)[2].known_as)
    assert found is not None
    return found


def grown(folder: Path) -> Path:
    return next(folder.glob("checkpoints/step-*-grown"))


def test_weights_moments_and_clocks_go_on(recipe: MakeRecipe, earlier: Path) -> None:
    last = newest(earlier)
    state = initial(recipe(MASKED, f"init={earlier}")).state(recipe(MASKED), ALONE)
    weights, moments = last.load(MODEL_FILE), last.load(OPTIMIZER_FILE)
    assert all(torch.equal(weights[n], p) for n, p in state.model.state_dict().items())
    assert all(torch.equal(moments[n], t) for n, t in state.optimizer.state_dict().items())
    assert state.births == last.manifest.births != {}
    assert (state.progress.updates, state.progress.step, state.progress.tokens) == (15, 0, 0)
    assert state.ramp is None, "its ramp has ended"
    assert [entry["operator"] for entry in state.lineage] == ["masked"]


def test_another_optimizer_starts_from_zero(recipe: MakeRecipe, earlier: Path) -> None:
    muon = recipe(MASKED, f"init={earlier}", "optim.name=muon")
    state = initial(muon).state(muon, ALONE)
    assert not any(t.any() for t in state.optimizer.state_dict().values())
    assert (state.births, state.progress.updates) == ({}, 0)


def test_a_checkpoint_grown_by_hand_runs_its_ramp_in_the_first_stage(
    recipe: MakeRecipe, earlier: Path, tmp_path: Path
) -> None:
    run(recipe(MASKED, f"init={grown(earlier)}"), tmp_path)
    assert [step["mask"] for step in records(tmp_path, "step")] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8] + [1] * 6
    )
    assert any("7 updates of its optimizer go on" in message for message in messages(tmp_path, "info"))
    again = initial(recipe(MASKED, f"init={tmp_path}")).state(recipe(MASKED), ALONE)
    assert again.ramp is None, "a ramp is run once"


def test_it_grows_on(recipe: MakeRecipe, earlier: Path, tmp_path: Path) -> None:
    run(recipe(stages(recipe(), slice(1, None)), f"init={earlier}"), tmp_path)
    lineage = newest(tmp_path).manifest.lineage
    assert [entry["stage"] for entry in lineage] == [None, 1, 2]
    assert all(r["certificate"]["exact"] for r in records(tmp_path, "growth"))


def test_killed_and_resumed_without_it_equals_straight(
    recipe: MakeRecipe, earlier: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(grown(earlier), tmp_path / grown(earlier).name)
    made = recipe(MASKED, f"init={source}")
    run(made, tmp_path / "straight")
    killed(made, tmp_path / "run", "train.after_step:kill@7")
    shutil.rmtree(source)
    run(made, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "straight")
    manifests = [newest(tmp_path / name).manifest for name in ("run", "straight")]
    assert manifests[0].init == manifests[1].init is not None


def test_other_weights_there_are_drift(recipe: MakeRecipe, earlier: Path, tmp_path: Path) -> None:
    killed(recipe(MASKED, f"init={earlier}"), tmp_path / "run", "train.after_step:kill@7")
    for override in ((f"init={grown(earlier)}",), ()):
        with pytest.raises(DriftError, match="init does not name the weights"):
            run(recipe(MASKED, *override), tmp_path / "run")
    run(recipe(MASKED, f"init={grown(earlier)}"), tmp_path / "run", accept_changes=True)
    assert any("init changed" in message for message in messages(tmp_path / "run"))
    assert len(steps(tmp_path / "run")) == 10


def test_another_shape_is_one_error_with_what_to_write(
    recipe: MakeRecipe, earlier: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="another shape") as caught:
        run(recipe(f"init={earlier}", "model.tied=false"), tmp_path / "run")
    assert caught.value.fix == (
        "write stages.small.d_model = 24, stages.small.n_heads = 4, stages.small.n_kv_heads = 2, "
        "stages.small.d_ff = 48, stages.small.n_layers = 2, model.tied = true"
    )
    assert not (tmp_path / "run").exists()


def test_constants_come_from_the_weights_unless_they_are_written(recipe: MakeRecipe, earlier: Path) -> None:
    first = find_checkpoint(earlier)
    model = first.manifest.model | {"norm_eps": 3e-6, "logit_mult": 0.25}
    other = Checkpoint(first.path, first.manifest.model_copy(update={"model": model}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("growlm.train.initial.find_checkpoint", lambda *_: other)
        config = initial(recipe(MASKED, f"init={earlier}")).config
        assert (config.norm_eps, config.logit_mult) == (3e-6, 0.25)
        with pytest.raises(RecipeError, match="another shape") as caught:
            initial(recipe(MASKED, f"init={earlier}", "model.norm_eps=1e-5"))
        assert caught.value.fix == "write model.norm_eps = 3e-06"


def test_a_checkpoint_inside_its_ramp_is_refused(recipe: MakeRecipe, earlier: Path) -> None:
    inside = grown(earlier).with_name("step-00000010")
    with pytest.raises(RecipeError, match="inside a mask ramp"):
        initial(recipe(MASKED, f"init={inside}"))


def test_text_of_another_tokenizer_is_refused(recipe: MakeRecipe, earlier: Path, tmp_path: Path) -> None:
    prepare(tmp_path / "data", write_corpus(tmp_path / "text", seed=3), vocab_size=300, validation_share=0.1)
    with pytest.raises(RecipeError, match="another tokenizer"):
        run(recipe(MASKED, f"init={earlier}", f"data.path={tmp_path / 'data'}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_tokens_of_signals_may_be_added(recipe: MakeRecipe, tmp_path: Path) -> None:
    """A model whose tokenizer has none is trained on with signals: all other ids mean what they did."""
    text = write_corpus(tmp_path / "text")
    prepare(tmp_path / "own", text, vocab_size=300, validation_share=0.1)
    told = json.loads((tmp_path / "own" / "tokenizer.json").read_text())
    told["added_tokens"] = [token for token in told["added_tokens"] if token["content"] not in SIGNALS]
    (tmp_path / "plain.json").write_text(json.dumps(told))
    prepare(tmp_path / "data", text, tokenizer=tmp_path / "plain.json", validation_share=0.1)
    straight_run(recipe(*ONE_STAGE, f"data.path={tmp_path / 'data'}"), tmp_path / "earlier")
    rows = [{"text": f"fact {i}", "proposition": "is even", "signal": i % 2 == 0} for i in range(40)]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = {"facts": SourceOptions([tmp_path / "facts.jsonl"], kind="signals")}
    sources = {name: SourceOptions(paths) for name, paths in text.items()} | facts
    prepare(tmp_path / "more", sources, tokenizer=tmp_path / "plain.json", validation_share=0.1)
    more = (f"init={tmp_path / 'earlier'}", f"data.path={tmp_path / 'more'}", "data.mixture.facts=1.0")
    straight_run(recipe(*ONE_STAGE, "stages.only.seq_len=32", *more), tmp_path / "run")
    (valid,) = records(tmp_path / "run", "valid")
    assert "facts" in valid["accuracy"]


def test_a_checkpoint_is_not_taken_for_a_run(recipe: MakeRecipe, earlier: Path) -> None:
    for folder in (grown(earlier), grown(earlier).parent):
        with pytest.raises(RecipeError, match="folder of checkpoints") as caught:
            run(recipe(MASKED), folder)
        assert f'write init = "{folder}"' in caught.value.fix


def test_nothing_there_is_refused(recipe: MakeRecipe, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        run(recipe(MASKED, f"init={tmp_path / 'none'}"), tmp_path / "run")


def test_a_hugging_face_folder_starts_without_moments_and_grows(recipe: MakeRecipe, tmp_path: Path) -> None:
    deeper = MASKED[:-1] + ", " + MASKED[8:].replace("'on'", "'deep'").replace("n_layers = 2", "n_layers = 3")
    made = recipe(deeper, f"init={tmp_path / 'hf'}")
    config = made.model_config_of(0).with_(norm_eps=1e-6, max_positions=64)
    model = Decoder(config).init_weights(3)
    (tmp_path / "hf").mkdir()
    tensors = {f"decoder.{name}": p.detach() for name, p in model.named_parameters()}
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    text = json.dumps({"model_type": "growlm", **config.to_dict()})
    (tmp_path / "hf" / "config.json").write_text(text, encoding="utf-8")
    state: TrainState = initial(made).state(made, ALONE)
    assert state.config.norm_eps == 1e-6
    assert all(torch.equal(p, model.get_parameter(n)) for n, p in state.model.named_parameters())
    killed(made, tmp_path / "run", "train.after_step:kill@7")
    run(made, tmp_path / "run")
    assert len(steps(tmp_path / "run")) == 20
    last = newest(tmp_path / "run").manifest.model
    assert (last["norm_eps"], last["max_positions"], last["n_layers"]) == (1e-6, 64, 3)


def write_llama(made: Recipe, out: Path, files: dict[str, bytes]) -> None:
    """A Hugging Face folder of the recipe's first shape, with `files` beside the weights."""
    model = Decoder(made.model_config_of(0)).init_weights(3)
    write_folder(
        MemoryWeights(model.config, dict(model.state_dict())),
        DIALECTS["llama"],
        out,
        dtype=torch.float32,
        shard_bytes=1 << 30,
        source={},
        keys=IDS,
        files=files,
    )


@pytest.mark.parametrize("through_import", [True, False])
def test_what_came_with_the_weights_leaves_with_them(
    recipe: MakeRecipe, data: Path, through_import: bool, tmp_path: Path
) -> None:
    """Import, train, export, and once more: the tokenizer, chat template, ids and growths are still there."""
    source = tmp_path / "source"
    made = recipe(MASKED)
    beside = {
        "tokenizer.json": (data / "tokenizer.json").read_bytes(),
        "chat_template.jinja": b"{{ messages }}",
        "tokenizer_config.json": b'{"model_max_length": 77}',
        "growth.json": json.dumps({"lineage": [LINEAGE]}).encode(),
    }
    write_llama(made, source, beside)
    if through_import:
        import_folder(source, tmp_path / "imported")
        source = tmp_path / "imported"
    run(recipe(MASKED, f"init={source}"), tmp_path / "first")
    run(recipe(MASKED, f"init={tmp_path / 'first'}"), tmp_path / "second")
    shutil.rmtree(source)
    for name in ("first", "second"):
        out = tmp_path / f"{name}-hf"
        export_checkpoint(tmp_path / name, out, dialect=None, dtype="fp32", shard_bytes=1 << 30, data=None)
        assert {file: (out / file).read_bytes() for file in beside} == beside
        said = json.loads((out / "config.json").read_text(encoding="utf-8"))
        assert {key: said[key] for key in IDS} == IDS
        card = (out / "README.md").read_text(encoding="utf-8")
        assert "| 5 | 1 x 16 |" in card
        origin = source.name if name == "first" else "first"
        assert f"started from the weights of `{origin}`" in card


def test_a_checkpoint_grown_by_hand_keeps_what_came_with_it(recipe: MakeRecipe, tmp_path: Path) -> None:
    write_llama(recipe(MASKED), tmp_path / "hf", {"chat_template.jinja": b"{{ messages }}"})
    import_folder(tmp_path / "hf", tmp_path / "imported")
    settings: dict[str, Any] = {"data": None, "seed": 0, "certificate": "streaming", "shard_bytes": 1 << 30}
    grow_offline(tmp_path / "imported", "d_ff=56", {"operator": "zero"}, tmp_path / "grown", **settings)
    before, after = (companions_of(find_checkpoint(tmp_path / n).path) for n in ("imported", "grown"))
    assert before == after
    assert "chat_template.jinja" in after


def test_with_another_tokenizer_only_the_growths_stay(recipe: MakeRecipe, tmp_path: Path) -> None:
    made = recipe(MASKED, f"init={tmp_path / 'hf'}")
    growths = json.dumps({"lineage": [LINEAGE]}).encode()
    write_llama(made, tmp_path / "hf", {"chat_template.jinja": b"{{ messages }}", "growth.json": growths})
    assert initial(made).companions == {"growth.json": growths}
