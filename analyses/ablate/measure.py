"""Measuring: orders, curves narrowed down to how many heads are enough, single heads, layers, and minimality."""

from collections.abc import Sequence

import numpy as np

from aft_lens.extraction import AttentionReader
from analyses.ablate.ablation import Ablation, Needed
from analyses.ablate.bench import Row
from analyses.ablate.calibration import Calibration
from analyses.ablate.curve import Curve, Point, next_count, reach
from analyses.ablate.plan import Plan
from analyses.ablate.replacer import same
from analyses.ablate.rung import Rung
from analyses.ablate.runner import Model, Runner
from analyses.explain.causal import Head

GONE = Rung("uniform")
"""What is left of a head whose offsets are taken away."""


def measure(reader: AttentionReader, calibration: Calibration, plan: Plan, runner: Runner) -> Ablation:
    """Everything that a plan asks for; raises as `Runner.rows` does."""
    intact = runner.rows([Model.of({})], "intact")[0]
    heads = [(layer, head) for layer in range(len(reader.layers)) for head in range(reader.num_heads)]
    orders = {order: ranked(order, heads, calibration, plan, runner) for order in plan.orders}
    wanted = [(plan.orders[0], rung) for rung in plan.rungs]
    wanted += [(order, plan.by) for order in plan.orders if (order, plan.by) not in wanted]
    counted = [
        Model.of(same(orders[order][:count], rung)) for order, rung in wanted for count in plan.counts
    ]  # fmt: skip
    runner.rows(counted, "curves")  # all at once, for several processes; each curve then finds its own
    curves = [curve(order, rung, orders[order], intact, plan, runner) for order, rung in wanted]
    alone = {
        rung: _points([Model.of({head: rung}) for head in heads], [1] * len(heads), intact, runner, "single heads")
        for rung in plan.single
    }
    whole = {
        rung: _points(
            [Model.of(same([head for head in heads if head[0] == layer], rung)) for layer in range(len(reader.layers))],
            [reader.num_heads] * len(reader.layers), intact, runner, "layers",
        )
        for rung in plan.layers
    }  # fmt: skip
    farthest = max((one for one in curves if one.rung == plan.by), key=lambda one: one.within)
    needed = minimality(farthest, runner) if plan.minimality and farthest.within else ()
    return Ablation(
        reader.source, calibration.positions, calibration.deviation, plan, intact, tuple(curves), alone, whole, needed,
        (runner.asked, runner.unique),
    )  # fmt: skip


def ranked(order: str, heads: Sequence[Head], calibration: Calibration, plan: Plan, runner: Runner) -> tuple[Head, ...]:
    """All heads, those to replace first at the front."""
    if order == "greedy":
        return _greedy(heads, plan, runner)
    if order != "damage":
        return ranked_by(order, heads, calibration, plan.seed)
    models = [Model.of({head: plan.by}, choosing=True) for head in heads]
    return _rising(heads, [row.damage for row in runner.rows(models, "damage of single heads")])


def ranked_by(order: str, heads: Sequence[Head], calibration: Calibration, seed: int) -> tuple[Head, ...]:
    """The same for the orders that need no replaced model: explained, deviation and random; ValueError on others."""
    if order == "explained":  # a uniform head, which has no fraction, comes last
        return _rising(heads, [-float(calibration.positions.variance[head].nan_to_num(-1.0)) for head in heads])
    if order == "deviation":
        return _rising(heads, [float(calibration.deviation[head]) for head in heads])
    if order == "random":
        return _rising(heads, np.random.default_rng(seed).random(len(heads)).tolist())
    raise ValueError(
        f"order must be explained, deviation or random, or one that `aft-lens ablate` measured, got {order!r}"
    )


def _rising(heads: Sequence[Head], score: Sequence[float]) -> tuple[Head, ...]:
    return tuple(heads[i] for i in np.argsort(score, kind="stable"))


def _greedy(heads: Sequence[Head], plan: Plan, runner: Runner) -> tuple[Head, ...]:
    """Round by round the heads that do least damage beside all that were taken before."""
    taken: list[Head] = []
    rounds = 0
    while left := [head for head in heads if head not in taken]:
        models = [Model.of(same([*taken, head], plan.by), head[0], choosing=True) for head in left]
        rows = runner.rows(models, f"greedy, {len(taken)} of {len(heads)} heads")
        rising = [left[i] for i in np.argsort([row.damage for row in rows], kind="stable")]
        rounds += 1
        taken += rising if rounds == plan.rounds else rising[: plan.step]
    return tuple(taken)


def curve(order: str, rung: Rung, heads: tuple[Head, ...], intact: Row, plan: Plan, runner: Runner) -> Curve:
    """The points of the plan, and for `by` those between the last within the tolerance and the first beyond."""
    counts = list(plan.counts)
    while True:
        models = [Model.of(same(heads[:count], rung)) for count in counts]
        rows = runner.rows(models, f"{order}, {rung.name}")
        points = [Point.of(count, row, intact) for count, row in zip(counts, rows)]
        more = next_count(points, plan.tolerance) if rung == plan.by else None
        if more is None:
            return Curve(order, rung, heads, tuple(points), tuple(rows), *reach(points, plan.tolerance))
        counts = sorted([*counts, more])


def minimality(curve: Curve, runner: Runner) -> tuple[Needed, ...]:
    """What the offsets of each head within the tolerance restore: without them it reads uniformly, the others stay.

    Where heads have several, each is also given back alone.
    """
    chosen = curve.heads[: curve.within]
    whole = same(chosen, curve.rung)
    several = range(1, curve.rung.offsets + 1) if curve.rung.kind == "offsets" and curve.rung.offsets > 1 else ()
    tried = [GONE, *(Rung("rank", rank) for rank in several)]
    models = [Model.of(whole | {head: rung}) for head in chosen for rung in tried]
    with_all, *rows = runner.rows([Model.of(whole), *models], "minimality")
    found = []
    for number, head in enumerate(chosen):
        without, *single = rows[number * len(tried) : (number + 1) * len(tried)]
        found.append(Needed.of(head, with_all, without, single))
    return tuple(found)


def _points(
    models: Sequence[Model], counts: Sequence[int], intact: Row, runner: Runner, words: str
) -> tuple[Point, ...]:
    return tuple(Point.of(count, row, intact) for count, row in zip(counts, runner.rows(models, words)))
