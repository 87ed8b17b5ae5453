"""The optimum and what it is worth, on losses whose optimum is known."""

import math
import random
import statistics
from dataclasses import replace

import pytest

from growlm.recipe.load import load_recipe
from growlm.search.optimum import (
    Optimum,
    covered,
    edges_of,
    find_optimum,
    missing_beside,
    neighbours,
    threshold,
)
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


def line(losses: list[float], seeds: list[float]) -> tuple[Space, list[Result]]:
    """Losses along one field, 1, 2, 4, ...; then of further seeds at its last value."""
    values: list[dict[str, Value]] = [{"optim.lr": 2.0**n} for n in range(-len(losses), 0)]
    space = parse_space(PROXY, [f"optim.lr=2^{-len(losses)}..2^-1"])
    results = [result(n, v, loss) for n, (v, loss) in enumerate(zip(values, losses, strict=True))]
    return space, results + [result(90 + n, values[-1], loss, n) for n, loss in enumerate(seeds, start=2)]


def test_an_edge_within_the_noise_is_left_where_the_parabola_has_its_vertex_inside() -> None:
    losses = [*(3 + 0.01 * (n + 1.55) ** 2 for n in (-4, -3, -2)), 3.0015]  # the last one by luck
    space, results = line(losses, [])
    assert found(space, results).edges, "without seeds nothing is noise"
    space, results = line(losses, [3.0035, 3.0045])
    o = found(space, results)
    assert (o.loss, o.sigma) == (pytest.approx(3.00317, abs=1e-5), pytest.approx(1.53e-3, rel=0.01)), (
        "the mean, not the luckiest seed"
    )
    assert (o.best.values, o.chosen.values) == ({"optim.lr": 2**-1}, {"optim.lr": 2**-2})
    assert o.edges == ()
    assert [r.values for r in o.within_noise] == [{"optim.lr": 2**-2}]


def test_losses_that_still_fall_at_the_last_value_are_an_edge_however_small_the_step() -> None:
    space, results = line([3.0, 2.9, 2.81, 2.80], [2.804, 2.796])
    o = found(space, results)
    assert o.noise > 0.01, "the last two do not differ"
    assert o.chosen is o.best
    assert [e.side for e in o.edges] == ["largest"]
    flat, results = line([3.0, 3.0, 3.0, 2.9999], [3.0001, 3.0])
    assert found(flat, results).edges, "a flat line has its optimum anywhere"


def test_the_threshold_is_passed_by_one_point_in_twenty_that_is_as_good() -> None:
    draw, passed, tries = random.Random(1), 0, 4000
    for _ in range(tries):
        seeds = [draw.gauss(3, 0.01) for _ in range(3)]
        noise = threshold(statistics.stdev(seeds), 3)
        passed += abs(draw.gauss(3, 0.01) - statistics.mean(seeds)) > noise
    assert passed / tries == pytest.approx(0.05, abs=0.01)
    assert threshold(None, 1) == 0.0


@pytest.mark.parametrize("state", ["failed", "pruned"])
def test_a_point_that_was_not_measured_is_no_neighbour_of_the_optimum(state: str) -> None:
    space = parse_space(PROXY, ["optim.lr=2^-8..2^-5"])
    values: list[dict[str, Value]] = [{"optim.lr": 2.0**n} for n in range(-8, -4)]
    results = [result(n, v, loss) for n, (v, loss) in enumerate(zip(values, (3.0, 2.9, 2.8), strict=False))]
    broken = replace(result(3, values[3], None), state=state)
    o = found(space, [*results, broken])
    assert missing_beside(space, [*results, broken], o, seed=1) == [broken]
    for again in (result(4, values[3], 2.9), replace(broken, state="diverged", loss=math.inf)):
        assert missing_beside(space, [*results, broken, again], o, seed=1) == []
    narrow = parse_space(PROXY, ["optim.lr=2^-8..2^-6"])
    assert edges_of(covered(narrow, [*results, broken]), o.best.values), "nor does it widen the grid"


def test_a_fixed_field_is_no_edge() -> None:
    assert not edges_of(parse_space(PROXY, ["optim.lr=0.01"]), {"optim.lr": 0.01})


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
