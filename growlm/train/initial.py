"""What the first stage of a run starts from, if not from random weights: `init` in the recipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xxhash

from growlm.checkpoint.disk import hash_file
from growlm.checkpoint.manifest import MANIFEST, Manifest
from growlm.checkpoint.store import Checkpoint
from growlm.convert.companions import GROWTH, TOKENIZER, companions_of
from growlm.convert.folder import CONFIG, FolderWeights, is_folder_of_weights
from growlm.data.tokenizer import Tokenizer
from growlm.errors import RecipeError
from growlm.model.decoder import Decoder
from growlm.model.parameters import axis_sizes, parameter_table
from growlm.parallel.world import World
from growlm.recipe.describe import toml_value
from growlm.recipe.schema import Recipe
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import state_kinds
from growlm.train.restore import find_checkpoint
from growlm.train.state import (
    OPTIMIZER_FILE,
    TrainState,
    check_fits,
    config_of,
    fill_moments,
    optimizer_of,
    piece_of_rows,
    stored_piece,
)
from growlm.train.stored import stored_companions

STAGE_FIELDS = ("d_model", "n_heads", "n_kv_heads", "d_ff", "n_layers")
MODEL_FIELDS = (
    *("family", "head_dim", "vocab_size", "tied", "rope_theta", "rotary_share", "xpos_scale_base"),
    "parametrization",
)
CARRIED_FIELDS = (
    *("norm_eps", "input_mult", "max_positions"),
    *("mup_base_d_model", "mup_base_hidden", "mup_base_n_layers"),
)
"""Taken from where the weights come from, unless the recipe writes them: then they must agree."""


@dataclass(frozen=True)
class Initial:
    """Weights to start from: a verified checkpoint, or (None) a Hugging Face folder at `path`.

    `companions` are the files beside them that hold for the new run too, with its tokenizer.
    """

    path: Path
    hash: str
    config: ModelConfig
    checkpoint: Checkpoint | None
    companions: Mapping[str, bytes]

    def state(self, recipe: Recipe, world: World) -> TrainState:
        """The state before the first step.

        A checkpoint's optimizer state goes on with its clocks, if it is of the recipe's optimizer. Raises
        CheckpointError if its tensors do not fit, or a foreign folder has a value that is not finite.
        """
        if self.checkpoint is None:
            with FolderWeights(self.path) as weights:
                return TrainState.around(weights.config, partial(piece_of_rows, weights), recipe, world)
        manifest: Any = self.checkpoint.manifest
        with world.together():
            check_fits(self.checkpoint, self.config)
        with self.checkpoint.open() as tensors:
            state = TrainState.around(self.config, partial(stored_piece, tensors), recipe, world)
        state.lineage = [entry | {"stage": None} for entry in manifest.lineage]
        if manifest.boundary == "after_growth":  # grown by hand: the first stage runs its mask ramp
            state.lineage[-1]["stage"] = 0
        if self._keeps_moments(recipe):
            state.births, state.progress.updates = manifest.births, manifest.updates
            state.optimizer = optimizer_of(state.engine, recipe, manifest.births)
            with world.together():
                fill_moments(state.optimizer, self.checkpoint)
        return state

    def _keeps_moments(self, recipe: Recipe) -> bool:
        """Whether the checkpoint has what the recipe's optimizer remembers, and nothing else."""
        assert self.checkpoint is not None
        table = parameter_table(self.config).values()
        wanted = {f"{kind}/{p.name}" for p in table for kind in state_kinds(p, recipe.optim.name)}
        return set(self.checkpoint.names(OPTIMIZER_FILE)) == wanted


def find_initial(recipe: Recipe, known: Collection[str], world: World | None = None) -> Initial | None:
    """What the recipe starts from; None if it starts from nothing. No tensor is read yet.

    `known`: hashes of the tokenizers whose ids mean what the data's do, the data's own first. With a world
    all its ranks call it, outside of `together`, and each hashes a share of the files.

    Raises RecipeError if the first stage has another shape or the data another tokenizer, or the ranks name
    different weights; CheckpointError if there is nothing there or it is damaged.
    """
    world = world or World.alone(torch.device("cpu"))
    path = Path(recipe.init or "")
    foreign = recipe.init is not None and is_folder_of_weights(path)
    world.same({"init": f"{recipe.init}" + " (Hugging Face)" * foreign})
    if recipe.init is None:
        return None
    checkpoint = None if foreign else find_checkpoint(path, world)
    folder_hash = hash_folder(path, world) if foreign else ""
    with world.together():
        if checkpoint is None:
            return _from_folder(recipe, path, folder_hash, known)
        return _from_checkpoint(recipe, path, checkpoint, known)


def _from_folder(recipe: Recipe, path: Path, folder_hash: str, known: Collection[str]) -> Initial:
    """A Hugging Face folder whose shape and tokenizer fit."""
    with FolderWeights(path) as weights:
        file = path / TOKENIZER
        wanted = Tokenizer.load(file).hash if file.is_file() else ""
        files = _valid(companions_of(path, weights.config_json), wanted, known)
        initial = Initial(path, folder_hash, _with_base(weights.config, recipe), None, files)
    _refuse_another_shape(recipe, initial)
    _refuse_another_tokenizer(path, wanted, known)
    return initial


def _from_checkpoint(recipe: Recipe, path: Path, checkpoint: Checkpoint, known: Collection[str]) -> Initial:
    """A verified checkpoint whose shape, ramp and tokenizer fit; its manifest's hash is its identity."""
    wanted = checkpoint.manifest.tokenizer_hash
    files = _valid(stored_companions(checkpoint.path), wanted, known)
    identity = hash_file(checkpoint.path / MANIFEST)
    initial = Initial(path, identity, _with_base(config_of(checkpoint), recipe), checkpoint, files)
    _refuse_inside_a_ramp(checkpoint.path, checkpoint.manifest)
    _refuse_longer_ramp(recipe, checkpoint)
    _refuse_another_shape(recipe, initial)
    _refuse_another_tokenizer(path, wanted, known)
    return initial


def _with_base(config: ModelConfig, recipe: Recipe) -> ModelConfig:
    """The model with a base shape where the run has one: weights that know of none are their own.

    At it every multiplier is 1, as it was for them.
    """
    base, sizes = recipe.base_shape(), axis_sizes(config)
    if base and config.mup_base_d_model is None:
        hidden = (float(sizes["q"]), float(sizes["kv"]), float(sizes["ffn"]))
        config = config.with_(mup_base_d_model=config.d_model, mup_base_hidden=hidden)
    if "mup_base_n_layers" in base and config.mup_base_n_layers is None:
        config = config.with_(mup_base_n_layers=config.n_layers)
    return config


def _refuse_another_tokenizer(path: Path, wanted: str, known: Collection[str]) -> None:
    if wanted and wanted not in known:
        raise RecipeError(
            "the data was prepared with another tokenizer than the weights of init were trained with",
            where=str(path),
            why="its ids mean other text",
            fix="prepare the data with that tokenizer: growlm data prepare --tokenizer tokenizer.json",
        )


def _valid(files: Mapping[str, bytes], tokenizer: str, known: Collection[str]) -> dict[str, bytes]:
    """The companions that hold for a run with the first of `known`: with another one, only the growths."""
    same = tokenizer == next(iter(known), None)
    return {name: data for name, data in files.items() if same or name == GROWTH}


def is_still_there(path: Path, known: str | None) -> bool:
    """Whether `path` holds what a run started from, by its hash; also if nothing is left there at all."""
    found = _identities(path)
    return not found or known in found


def _identities(path: Path) -> list[str]:
    """The hash of everything at `path` that a run can start from."""
    if is_folder_of_weights(path):
        return [hash_folder(path)]
    places = (MANIFEST, f"step-*/{MANIFEST}", f"checkpoints/step-*/{MANIFEST}")
    return [hash_file(manifest) for place in places for manifest in path.glob(place)]


def hash_folder(path: Path, world: World | None = None) -> str:
    """One hash of the shape and tensor files of a Hugging Face folder; the ranks of a world share them."""
    world = world or World.alone(torch.device("cpu"))
    names, sizes, hashes = [CONFIG], "", {}
    with world.together():
        names += sorted(file.name for file in path.glob("*.safetensors"))
        sizes = " ".join(f"{name}:{(path / name).stat().st_size}" for name in names)
    world.same({"files of init": xxhash.xxh3_64_hexdigest(sizes.encode())})
    with world.together():
        hashes = {name: hash_file(path / name) for name in names[world.rank :: world.size]}
    told = {name: found for share in world.exchange(hashes) for name, found in share.items()}
    tensors = sorted(told.keys() - {CONFIG})
    return xxhash.xxh3_128_hexdigest("".join(told[name] for name in (CONFIG, *tensors)).encode())


@torch.no_grad()
def foreign_model(path: Path) -> Decoder:
    """The model of a Hugging Face folder, in fp32. Raises CheckpointError."""
    with FolderWeights(path) as weights:
        model = Decoder(weights.config)
        for name, parameter in model.named_parameters():
            parameter.copy_(weights.read(name))
    return model


def _refuse_inside_a_ramp(path: Path, manifest: Manifest) -> None:
    if manifest.mask < 1 and manifest.stage_step:
        raise RecipeError(
            f"the checkpoint of init is inside a mask ramp (mask {manifest.mask:.2f})",
            where=str(path),
            why="the first stage would start its ramp anew",
            fix="name a checkpoint at the start or after the end of the ramp",
        )


def _refuse_longer_ramp(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """A grown checkpoint's ramp runs in the first stage, which has to be long enough for it."""
    manifest, stage = checkpoint.manifest, recipe.stages[0]
    ramp = TrainState.ramp_of(list(manifest.lineage), manifest.stage)
    if manifest.mask < 1 and ramp and ramp.steps > stage.steps:
        raise RecipeError(
            f"the mask ramp of init takes {ramp.steps} steps, stage {stage.name} has {stage.steps}",
            where=f"stages.{stage.name}.tokens",
            why="what is new would never be all the way in",
            fix=f"write tokens = {ramp.steps * stage.tokens_per_step} or more",
        )


def _refuse_another_shape(recipe: Recipe, initial: Initial) -> None:
    """One error with every field of the first stage that is not as in the weights, and what to write."""
    written = [field for field in CARRIED_FIELDS if field in recipe.model.model_fields_set]
    stated, found = recipe.model_config_of(0), initial.config
    places = {
        f"stages.{recipe.stages[0].name}": STAGE_FIELDS,
        "model": (*MODEL_FIELDS, *written),
    }
    pairs = {
        f"{table}.{field}": (_plain(stated, field), _plain(found, field))
        for table, fields in places.items()
        for field in fields
    }
    differing = {key: (here, there) for key, (here, there) in pairs.items() if here != there}
    if differing:
        raise RecipeError(
            "the first stage has another shape than the weights it starts from",
            where=recipe.init or "",
            why="; ".join(f"{key} is {here}, there {there}" for key, (here, there) in differing.items()),
            fix="write " + ", ".join(f"{key} = {toml_value(there)}" for key, (_, there) in differing.items()),
        )


def _plain(config: ModelConfig, field: str) -> Any:
    """A field as a recipe writes it."""
    value = getattr(config, field)
    return list(value) if isinstance(value, tuple) else value
