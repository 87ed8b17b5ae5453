"""A checkpoint from many ranks is the checkpoint of one: the same tensors, growth and export."""

from pathlib import Path
from typing import Any

import pytest

from growlm.checkpoint.format import TensorWriter
from growlm.checkpoint.manifest import Manifest
from growlm.checkpoint.store import Checkpoint, CheckpointStore
from growlm.plan.layout import Layout, written_by
from growlm.recipe.shape import ModelConfig
from growlm.train.exchange import export_checkpoint
from growlm.train.state import MODEL_FILE, OPTIMIZER_FILE, load_model
from tests.train.test_grow import ALL, CLONED, grow_to

LAYOUTS = [
    Layout(dp=3),
    Layout(tp=2),
    Layout(pp=2),
    Layout(dp=4, replicas=2),
    Layout(dp=2, tp=2, pp=2, zero=1),
    Layout(dp=1, tp=2, zero=0),
]
KINDS = {MODEL_FILE: ("",), OPTIMIZER_FILE: ("exp_avg/", "exp_avg_sq/")}


def shape_of(checkpoint: Checkpoint) -> ModelConfig:
    return ModelConfig(**checkpoint.manifest.model)  # type: ignore[arg-type]


def sharded(source: Checkpoint, layout: Layout, folder: Path) -> Checkpoint:
    """The same checkpoint as the ranks of a layout write it."""
    store = CheckpointStore(folder, keep=2)
    with source.open() as tensors, store.begin(source.manifest.step) as pending:
        for rank in range(layout.world):
            written = written_by(shape_of(source), layout, rank)
            for file, prefixes in KINDS.items():
                held = {prefix + name: piece for prefix in prefixes for name, piece in written.items()}
                name = f"{Path(file).stem}-{rank + 1:05d}-of-{layout.world:05d}.safetensors"
                entries = [(n, tensors.dtype(n), piece.shape) for n, piece in held.items()]
                with TensorWriter(pending.folder / name, entries) as writer:
                    for n, piece in held.items():
                        writer.write(tensors.read(n, *piece.ranges[0], *piece.ranges[1:2]))
                places = {n: (piece.start, tensors.shape(n)) for n, piece in held.items()}
                pending.add(name, writer.close(), places)
        skip = {"version", "created", "step", "files", "tensors"}
        pending.commit(**source.manifest.model_dump(exclude=skip))
    found = store.latest_valid(pytest.fail)
    assert found is not None
    return found


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_tensors_are_the_same(source: Checkpoint, layout: Layout, tmp_path: Path) -> None:
    many = sharded(source, layout, tmp_path)
    assert len(many.shards(MODEL_FILE)) == len(many.shards(OPTIMIZER_FILE)) == layout.world
    for file in KINDS:
        assert set(many.names(file)) == set(source.names(file))
        whole = source.load(file)
        assert all(tensor.equal(whole[name]) for name, tensor in many.load(file).items())
    state = load_model(source).state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in load_model(many).state_dict().items())


@pytest.mark.parametrize(
    ("sizes", "settings"),
    [(ALL, {"operator": "masked", "depth": "masked"}), (CLONED, {"operator": "clone", "noise": 0.3})],
)
def test_it_grows_into_the_same_checkpoint(
    source: Checkpoint, sizes: dict[str, int], settings: dict[str, Any], tmp_path: Path
) -> None:
    many = sharded(source, Layout(dp=2, tp=2, pp=2), tmp_path / "many")
    grown: list[Manifest] = []
    for name, checkpoint in (("a", source), ("b", many)):
        store = CheckpointStore(tmp_path / name, keep=2)
        grow_to(checkpoint, store, sizes, settings)
        found = store.latest_valid(pytest.fail)
        assert found is not None
        grown.append(found.manifest)
    assert grown[0].tensors == grown[1].tensors
    assert grown[0].births == grown[1].births


def test_it_is_exported_as_the_same_folder(source: Checkpoint, data: Path, tmp_path: Path) -> None:
    many = sharded(source, Layout(dp=2, tp=2), tmp_path / "many")
    folders = {"a": source.path, "b": many.path}
    for name, path in folders.items():
        export_checkpoint(path, tmp_path / name, dialect=None, dtype="bf16", shard_bytes=8_000, data=data)
    files = sorted(path.name for path in (tmp_path / "a").glob("*.safetensors"))
    assert len(files) > 1
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)
