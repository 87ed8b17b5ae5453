"""AdamW by parts, against torch and against an independent reference in fp64, element by element."""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor

from growlm.model.decoder import Decoder
from growlm.model.parameters import parameter_table
from growlm.plan.pieces import Piece
from growlm.recipe.schema import OptimTable
from growlm.recipe.shape import ModelConfig
from growlm.train.optimizer import Births, Optimizer

CONFIG = ModelConfig(
    family="flm", d_model=12, n_heads=4, n_kv_heads=2, head_dim=4, d_ff=20, n_layers=3, vocab_size=30
)
UNITS = {"vocab": 30, "d_model": 12, "q": 16, "kv": 8, "ffn": 20}
BIRTHS: Births = {
    "vocab": [[26, 30, 5]],
    "d_model": [[8, 12, 3]],
    "q": [[4, 8, 3], [12, 16, 3]],
    "kv": [[4, 8, 5]],
    "ffn": [[10, 15, 3], [15, 20, 5]],
    "layers": [[1, 2, 4]],
}
YOUNGEST = 5


def settings(**values: float | str) -> OptimTable:
    return OptimTable.model_validate({"lr": 1.0, "weight_decay": 0.1} | values)


def model_and_optimizer(
    config: ModelConfig, births: Births, **values: float | str
) -> tuple[Decoder, Optimizer]:
    model = Decoder(config).init_weights(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)  # so that gains, biases and matrices all show a decay
    return model, Optimizer.of(model, settings(**values), births)


def gradients(model: Decoder, update: int) -> dict[str, Tensor]:
    """Random ones, a function of the update."""
    generator = torch.Generator().manual_seed(update)
    return {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}


def element_births(name: str, config: ModelConfig, births: Births) -> np.ndarray:
    """The update at which each element of a tensor was born: the youngest of row, column and block."""

    def of(axis: str, unit: int) -> int:
        return max(
            (update for start, stop, update in births.get(axis, []) if start <= unit < stop), default=0
        )

    parameter = parameter_table(config)[name]
    found = np.zeros(parameter.shape, dtype=int)
    for place in np.ndindex(*parameter.shape):
        born = [of(axis, unit) for axis, unit in zip(parameter.axes, place, strict=True)]
        born += [] if parameter.layer is None else [of("layers", parameter.layer)]
        found[place] = max(born)
    return found


class Reference:
    """AdamW (1711.05101, algorithm 2) in fp64 with a step count for each element."""

    def __init__(self, model: Decoder, births: Births, table: OptimTable) -> None:
        self.table, self.config = table, model.config
        self.weights = {n: p.detach().double().numpy().copy() for n, p in model.named_parameters()}
        self.born = {n: element_births(n, model.config, births) for n in self.weights}
        self.m = {n: np.zeros_like(w) for n, w in self.weights.items()}
        self.v = {n: np.zeros_like(w) for n, w in self.weights.items()}

    def step(self, lr: float, update: int, gradients: dict[str, Tensor]) -> None:
        b1, b2 = self.table.beta1, self.table.beta2
        for name, w in self.weights.items():
            p, g = parameter_table(self.config)[name], gradients[name].double().numpy()
            t = update - self.born[name]
            w -= lr * p.lr_mult * self.table.weight_decay * p.wd_mult * w
            self.m[name] = b1 * self.m[name] + (1 - b1) * g
            self.v[name] = b2 * self.v[name] + (1 - b2) * g * g
            m, v = self.m[name] / (1 - b1**t), self.v[name] / (1 - b2**t)
            w -= lr * p.lr_mult * m / (np.sqrt(v) + self.table.eps * p.eps_mult)


@pytest.mark.parametrize("family", ["flm", "llama"])
@pytest.mark.parametrize("base", [None, 6])
def test_every_element_follows_its_own_clock_and_multipliers(family: str, base: int | None) -> None:
    config = CONFIG.with_(family=family, mup_base_d_model=base)
    model, optimizer = model_and_optimizer(config, BIRTHS, eps=1e-2)
    reference = Reference(model, BIRTHS, optimizer.settings)
    for update in range(YOUNGEST + 1, YOUNGEST + 13):
        grads = gradients(model, update)
        optimizer.step(grads, 1e-2, update)
        reference.step(1e-2, update, grads)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), reference.weights[name], rtol=2e-6, atol=1e-7)
        np.testing.assert_allclose(optimizer.exp_avg[name].numpy(), reference.m[name], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(optimizer.exp_avg_sq[name].numpy(), reference.v[name], rtol=1e-5)


def test_without_births_it_is_torchs_fused_adamw_bit_for_bit() -> None:
    model, optimizer = model_and_optimizer(CONFIG, {})
    twin, _ = model_and_optimizer(CONFIG, {})
    matrices = [p for p in twin.parameters() if p.dim() == 2]
    vectors = [p for p in twin.parameters() if p.dim() == 1]
    theirs = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.95),
        fused=True,
    )
    for update in range(1, 30):
        grads = gradients(model, update)
        for name, p in twin.named_parameters():
            p.grad = grads[name]
        optimizer.step(grads, 1e-2, update)
        theirs.step()
    for name, p in model.named_parameters():
        other = twin.get_parameter(name)
        assert torch.equal(p, other)
        assert torch.equal(optimizer.exp_avg[name], theirs.state[other]["exp_avg"])
        assert torch.equal(optimizer.exp_avg_sq[name], theirs.state[other]["exp_avg_sq"])


def test_a_tensor_without_births_is_not_touched_by_the_parts_of_others() -> None:
    births: Births = {"ffn": BIRTHS["ffn"]}
    model, optimizer = model_and_optimizer(CONFIG, births)
    twin, whole = model_and_optimizer(CONFIG, {})
    for update in range(6, 20):
        for its in (optimizer, whole):
            its.step(gradients(model, update), 1e-2, update)
    for name, p in model.named_parameters():
        assert torch.equal(p, twin.get_parameter(name)) is ("ffn" not in parameter_table(CONFIG)[name].axes)


def largest_moves(births: Births, gradient: Callable[[int, Tensor], Tensor]) -> list[float]:
    """Largest |update| / lr of the rows 10.. of an FFN, in each of 20 updates after a growth at 1,000."""
    model, optimizer = model_and_optimizer(CONFIG, births, beta2=0.999, weight_decay=0.0)
    weight = model.get_parameter("blocks.0.mlp.up_proj.weight")
    moves = []
    for update in range(1001, 1021):
        before = weight.detach().clone()
        grads = {n: gradient(update, p) for n, p in model.named_parameters()}
        optimizer.step(grads, 1e-3, update)
        moves.append((weight.detach() - before)[10:].abs().max().item() / 1e-3)
    return moves


def test_new_rows_take_no_more_than_the_learning_rate() -> None:
    """Zero moments under the tensor's old step count give up to 6.6 x lr."""

    def steady(_: int, p: Tensor) -> Tensor:
        return torch.ones_like(p)

    def drifting(update: int, p: Tensor) -> Tensor:
        return 1 + 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(update))

    for gradient in (steady, drifting):
        assert max(largest_moves({"ffn": [[10, 20, 1000]]}, gradient)) <= 1.1
        assert max(largest_moves({}, gradient)) > 3, "the trap that the births avoid"


def test_parts_become_whole_with_the_same_bits() -> None:
    """On sizes that fill the kernel's vectors; its scalar tail may round one bit differently."""
    config = CONFIG.with_(d_model=32, d_ff=64)
    births: Births = {"ffn": [[32, 64, 3]], "d_model": [[16, 32, 3]]}
    model, optimizer = model_and_optimizer(config, births, beta2=0.5, beta1=0.5)
    twin, parted = model_and_optimizer(config, births, beta2=0.5, beta1=0.5)
    nobody = {10**9: 0.5}  # a factor for a birth that does not exist: keeps the parts, changes nothing
    for update in range(4, optimizer.mature + 12):
        grads = gradients(model, update)
        optimizer.step(grads, 1e-2, update)
        parted.step(grads, 1e-2, update, nobody)
        whole = len(optimizer._current_parts("norm.weight", update, None)) == 1
        assert whole is (update >= 3 + optimizer.mature)
        for name, p in model.named_parameters():
            assert torch.equal(p, twin.get_parameter(name)), (update, name)
    assert 1.0 - 0.5**optimizer.mature == 1.0


def test_a_rewarm_slows_the_new_part_and_nothing_else() -> None:
    moved = []
    for rewarm in (None, {5: 0.25}):
        model, optimizer = model_and_optimizer(CONFIG, BIRTHS, weight_decay=0.0)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer.step(gradients(model, 6), 1e-2, 6, rewarm)
        moved.append({n: (p.detach() - before[n]).numpy() for n, p in model.named_parameters()})
    for name, full in moved[0].items():
        new = element_births(name, CONFIG, BIRTHS) == 5
        np.testing.assert_array_equal(moved[1][name][~new], full[~new])
        np.testing.assert_allclose(moved[1][name][new], 0.25 * full[new], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("family", ["flm", "llama"])
def test_decay_only_where_the_table_says(family: str) -> None:
    model, optimizer = model_and_optimizer(CONFIG.with_(family=family), {})
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer.step({n: torch.zeros_like(p) for n, p in before.items()}, 0.5, 1)
    for name, p in model.named_parameters():
        vector = "norm" in name or name.endswith("bias")
        assert torch.equal(p, before[name] if vector else before[name] * (1 - 0.5 * 0.1)), name


def test_state_round_trips() -> None:
    model, optimizer = model_and_optimizer(CONFIG, BIRTHS)
    optimizer.step(gradients(model, 6), 1e-2, 6)
    _, other = model_and_optimizer(CONFIG, BIRTHS)
    other.load_state_dict(optimizer.state_dict())
    for key, tensor in optimizer.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key])


def rectangles(shape: tuple[int, ...], rows: int, columns: int) -> list[Piece]:
    """A tensor cut into rows x columns pieces, as torch.chunk cuts; the last ones may be empty."""
    whole = Piece.whole(shape)
    cut = [whole.part(0, i, rows) for i in range(rows)]
    return cut if len(shape) == 1 else [p.part(1, j, columns) for p, j in product(cut, range(columns))]


class Pieces:
    """A model's training by one optimizer for each rectangle, each in a thread of its own as ranks are."""

    def __init__(self, whole: Optimizer, config: ModelConfig, births: Births, cut: tuple[int, int]) -> None:
        self.table = {n: rectangles(p.shape, *cut) for n, p in whole.table.items()}
        self.matrices = {n: torch.full(p.shape, math.nan) for n, p in whole.table.items()}
        self.barrier = Barrier(math.prod(cut), timeout=60)
        self.ranks = [self.rank(whole, config, births, k) for k in range(math.prod(cut))]

    def rank(self, whole: Optimizer, config: ModelConfig, births: Births, k: int) -> Optimizer:
        pieces = {n: cut[k] for n, cut in self.table.items() if k < len(cut)}
        local = {n: whole.parameters[n].detach()[piece.slices].clone() for n, piece in pieces.items()}

        def gather(name: str, piece: Tensor) -> Tensor:
            self.matrices[name][pieces[name].slices] = piece
            self.barrier.wait()
            return self.matrices[name].clone()

        return Optimizer(config, local, pieces, whole.settings, births, gather)

    def step(
        self, grads: dict[str, Tensor], update: int, rewarm: Mapping[int, float] | None, skip: Tensor
    ) -> None:
        def step(rank: Optimizer) -> None:
            mine = {n: grads[n][piece.slices] for n, piece in rank.pieces.items()}
            rank.step(mine, 1e-2, update, rewarm, skip)

        with ThreadPoolExecutor(len(self.ranks)) as threads:
            list(threads.map(step, self.ranks))

    def together(self) -> dict[str, Tensor]:
        """Weights and state, put together."""
        tensors: dict[str, Tensor] = {}
        for rank in self.ranks:
            state, pieces = rank.parameters | rank.state_dict(), rank.pieces | rank.state_pieces()
            for key, tensor in state.items():
                whole = rank.table[key.partition("/")[2] or key].shape
                assert tensor.shape == pieces[key].shape
                tensors.setdefault(key, torch.full(whole, math.nan))[pieces[key].slices] = tensor
        return tensors


@pytest.mark.parametrize("cut", [(2, 2), (5, 1), (13, 3)])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_pieces_are_trained_as_the_whole(name: str, cut: tuple[int, int]) -> None:
    """Births run through the rectangles; of 13 row pieces of 12 or 20 rows some are empty."""
    model, whole = model_and_optimizer(CONFIG, BIRTHS, name=name)
    pieces = Pieces(whole, CONFIG, BIRTHS, cut)
    assert any(not p.numel for ps in pieces.table.values() for p in ps) is (cut[0] > 2)
    for update in range(YOUNGEST + 1, YOUNGEST + 9):
        grads = gradients(model, update)
        rewarm = {YOUNGEST: 0.25, 3: 0.5} if update % 2 else None
        skip = torch.tensor(float(update == YOUNGEST + 4))
        whole.step(grads, 1e-2, update, rewarm, skip)
        pieces.step(grads, update, rewarm, skip)
    for key, tensor in pieces.together().items():
        expected = (whole.parameters | whole.state_dict())[key]
        if name == "muon" and key in whole.table and whole.table[key].role == "hidden":
            torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6, msg=key)
        else:  # the scalar tail of the fused kernel may round one bit differently
            torch.testing.assert_close(tensor, expected, rtol=2e-7, atol=1e-7, msg=key)


@pytest.mark.parametrize("rewarm", [None, {YOUNGEST: 0.5}])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_skipped_step_keeps_every_bit_whatever_the_gradients_are(
    name: str, rewarm: Mapping[int, float] | None
) -> None:
    model, optimizer = model_and_optimizer(CONFIG, BIRTHS, name=name)
    optimizer.step(gradients(model, 6), 1e-2, 6)
    before = {n: t.detach().clone() for n, t in (optimizer.parameters | optimizer.state_dict()).items()}
    for bad in (math.nan, math.inf, 1.0):
        grads = {n: torch.full_like(p, bad) for n, p in optimizer.parameters.items()}
        optimizer.step(grads, 1e-2, 7, rewarm, torch.ones(()))
        for key, tensor in (optimizer.parameters | optimizer.state_dict()).items():
            assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_that_is_not_skipped_is_as_without_the_question(name: str) -> None:
    _, one = model_and_optimizer(CONFIG, BIRTHS, name=name)
    model, other = model_and_optimizer(CONFIG, BIRTHS, name=name)
    for update in range(6, 10):
        one.step(gradients(model, update), 1e-2, update, None, torch.zeros(()))
        other.step(gradients(model, update), 1e-2, update)
    for key, tensor in (one.parameters | one.state_dict()).items():
        assert torch.equal(tensor, (other.parameters | other.state_dict())[key]), key
