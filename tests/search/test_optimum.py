"""The optimum and what it is worth, on losses whose optimum is known."""

import math
import random

import pytest

from growlm.recipe.load import load_recipe
from growlm.search.optimum import Optimum, covered, edges_of, find_optimum, neighbours, threshold
from growlm.search.proxy import make_proxy
from growlm.search.space import Space, Value, parse_space
from growlm.search.study import Result

PROXY = make_proxy(load_recipe("laptop")).recipe
GRID = parse_space(PROXY, ["optim.lr=2^-10..2^-4", "model.init_std=0.01,0.02,0.04"])


def result(number: int, values: dict[str, Value], loss: float | None, seed: int = 1) -> Result:
    return Result(number, str(number), values, seed, "done" if loss else "pruned", loss, {}, 1.0, 1.0, 1)


def bowl(space: Space, at: dict[str, float], sharp: dict[str, float], noise: float = 0.0) -> list[Result]:
    """Losses of every point of the grid: 3 + sum of sharp * (notches from `at`)^2, and noise."""
    draw = random.Random(0)
    results = []
    for number, point in enumerate(space.grid()):
        values = space.named(point)
        loss = 3.0 + sum(s * math.log2(float(values[k]) / at[k]) ** 2 for k, s in sharp.items())
        results.append(result(number, values, loss + draw.gauss(0, noise)))
    return results


def found(space: Space, results: list[Result]) -> Optimum:
    optimum = find_optimum(space, results, seed=1)
    assert optimum is not None
    return optimum


def test_a_parabola_gives_back_the_optimum_it_was_made_of() -> None:
    at = {"optim.lr": 2**-7.3, "model.init_std": 0.021}
    o = found(GRID, bowl(GRID, at, {"optim.lr": 0.05, "model.init_std": 0.01}))
    assert o.best.values == {"optim.lr": 2**-7, "model.init_std": 0.02}
    assert o.edges == ()
    lr, std = o.parabolas
    assert (lr.best, std.best) == (pytest.approx(2**-7.3), pytest.approx(0.021))
    assert (lr.curvature, std.curvature) == (pytest.approx(0.05), pytest.approx(0.01))
    assert (lr.points, std.points) == (5, 3)
    assert std.uncertainty is None, "three points and no noise leave nothing to judge by"


def test_the_uncertainty_of_the_optimum_is_that_of_repeated_searches() -> None:
    space = parse_space(PROXY, ["optim.lr=2^-9..2^-5"])
    noise, vertices, errors = 0.004, [], []
    for seed in range(300):
        draw = random.Random(seed)
        o = found(
            space,
            [
                result(n, {"optim.lr": 2.0**n}, 3 + 0.05 * (n + 7) ** 2 + draw.gauss(0, noise))
                for n in range(-9, -4)
            ],
        )
        vertices.append(math.log2(o.parabolas[0].best))
        errors.append(o.parabolas[0].uncertainty or 0.0)
    spread = math.sqrt(sum((v + 7) ** 2 for v in vertices) / len(vertices))
    assert math.sqrt(sum(e**2 for e in errors) / len(errors)) == pytest.approx(spread, rel=0.25)


def test_points_that_were_drawn_between_the_notches_are_fitted_together() -> None:
    draw = random.Random(5)
    results = []
    for number in range(32):
        x, y = draw.uniform(-10, -4), draw.uniform(-6.6, -4.7)
        values: dict[str, Value] = {"optim.lr": 2.0**x, "model.init_std": 2.0**y}
        results.append(result(number, values, 3 + 0.05 * (x + 7.3) ** 2 + 0.02 * (y + 5.5) ** 2))
    space = parse_space(PROXY, ["optim.lr=2^-10..2^-4", "model.init_std=0.01..0.04"])
    by_name = {p.name: p for p in found(space, results).parabolas}
    assert by_name["optim.lr"].best == pytest.approx(2**-7.3)
    assert by_name["model.init_std"].best == pytest.approx(2**-5.5)


@pytest.mark.parametrize(
    ("at", "side", "extend"),
    [(2**-12, "smallest", "optim.lr=2^-12..2^-4"), (2**-2, "largest", "optim.lr=2^-10..2^-2")],
)
def test_an_optimum_on_the_edge_says_which_way_to_go(at: float, side: str, extend: str) -> None:
    results = bowl(GRID, {"optim.lr": at, "model.init_std": 0.02}, {"optim.lr": 0.05, "model.init_std": 0.01})
    (edge,) = found(GRID, results).edges
    assert (edge.name, edge.side, edge.extend) == ("optim.lr", side, extend)
    wider = parse_space(PROXY, [edge.extend])
    assert at in wider.axes[0].values


def test_an_edge_that_the_schema_sets_is_none_and_two_values_are_only_edges() -> None:
    decay = parse_space(PROXY, ["optim.weight_decay=0,0.1,0.2"])
    assert not edges_of(decay, {"optim.weight_decay": 0.0})
    (edge,) = edges_of(decay, {"optim.weight_decay": 0.2})
    assert edge.extend == "optim.weight_decay=0.0,0.1,0.2,0.3,0.4"
    two = parse_space(PROXY, ["model.init_std=0.01,0.02"])
    assert [e.side for v in (0.01, 0.02) for e in edges_of(two, {"model.init_std": v})] == [
        "smallest",
        "largest",
    ]
    words = parse_space(PROXY, ["schedule.kind=wsd,cosine"])
    assert not edges_of(words, {"schedule.kind": "wsd"})


def test_on_a_flat_axis_a_point_within_the_noise_is_taken_from_the_inside() -> None:
    results = bowl(GRID, {"optim.lr": 2**-7, "model.init_std": 0.02}, {"optim.lr": 0.05})
    flat = [
        result(r.number, r.values, (r.loss or 0) - 1e-3 * (r.values["model.init_std"] == 0.04))
        for r in results
    ]
    assert [e.name for e in found(GRID, flat).edges] == ["model.init_std"], "without seeds nothing is noise"
    best = found(GRID, flat).best
    for seed, loss in ((2, 2.998), (3, 3.0)):
        flat.append(result(100 + seed, best.values, loss, seed))
    o = found(GRID, flat)
    assert o.sigma == pytest.approx(1e-3)
    assert threshold(o.sigma) == pytest.approx(2 * math.sqrt(2) * 1e-3)
    assert o.best.values["model.init_std"] == 0.04
    assert o.chosen.values == {"optim.lr": 2**-7, "model.init_std": 0.02}
    assert o.edges == ()
    assert len(o.within_noise) == 2
    assert o.spread["model.init_std"] == pytest.approx(1e-3)


def test_diverged_and_pruned_points_are_no_optimum() -> None:
    values: list[dict[str, Value]] = [{"optim.lr": 2.0**n} for n in (-6, -5, -4)]
    space = parse_space(PROXY, ["optim.lr=2^-6..2^-4"])
    results = [result(0, values[0], 3.0), result(1, values[1], math.inf), result(2, values[2], None)]
    assert found(space, results).best.number == 0
    assert find_optimum(space, results[1:], seed=1) is None


def test_a_grid_that_was_extended_keeps_its_old_points() -> None:
    old = bowl(parse_space(PROXY, ["optim.lr=2^-10..2^-8"]), {"optim.lr": 2**-8}, {"optim.lr": 0.1})
    new = parse_space(PROXY, ["optim.lr=2^-7..2^-6"])
    space = covered(new, old)
    assert space.axes[0].values == tuple(2.0**n for n in range(-10, -5))
    assert not edges_of(space, {"optim.lr": 2**-8})
    assert neighbours(space, {"optim.lr": 2**-8}) == [{"optim.lr": 2**-9}, {"optim.lr": 2**-7}]
