"""Speed and exactness of the maps into the ball and out of it, against geoopt.

tangent vectors (4096, 128) -> exp0, log0 -> backward        v -> exp0 -> log0 -> how far from v
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bytropix.geometry import exp0, log0
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, torch_threads

ROWS, DIM = 4096, 128
CALLS = 20
ROUNDING = 1e-6  # about 8 units in the last place of float32: below this no error is the larger
CURVATURES = (0.1, 1.0, 4.0)
NORMS = (1e-6, 1e-4, 0.01, 1.0, 2.0, 4.0)
Map = Callable[[Tensor], Tensor]


def bench_geometry(settings: BenchSettings) -> list[BenchRow]:
    """Measure both maps with their backward passes on one thread, and the error of a round trip in float32."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # geoopt scripts functions, which torch gives up
            import geoopt
    except ImportError:
        note = "geoopt is not installed; pip install 'bytropix[bench]'"
        return [BenchRow(name="geometry: exp0 and log0", value=None, unit="Mvectors/s", note=note)]
    with torch_threads(1):
        return _speed(settings.repeats, geoopt) + _round_trips(geoopt)


def _speed(repeats: int, geoopt: Any) -> list[BenchRow]:
    ball = geoopt.PoincareBall(c=1.0)
    one = torch.ones(())
    generator = torch.Generator().manual_seed(0)
    tangent = 0.05 * torch.randn(ROWS, DIM, generator=generator)
    point = exp0(tangent, one)
    trips: list[tuple[str, Tensor, Map, Map]] = [
        ("exp0 forward and backward", tangent, lambda v: exp0(v, one), ball.expmap0),
        ("log0 forward and backward", point, lambda y: log0(y, one), ball.logmap0),
        (
            "log0(exp0) forward and backward",
            tangent,
            lambda v: log0(exp0(v, one), one),
            lambda v: ball.logmap0(ball.expmap0(v)),
        ),
    ]
    return [
        against(
            f"geometry: {name}",
            "Mvectors/s",
            Contender(work=_many(ours, value), amount=CALLS * ROWS / 1e6),
            Contender(work=_many(theirs, value), amount=CALLS * ROWS / 1e6),
            repeats,
            called="geoopt, as it comes",
            clock="processor",
            note=f"({ROWS}, {DIM}) float32, one thread",
        )
        for name, value, ours, theirs in trips
    ]


def _many(function: Map, value: Tensor) -> Callable[[], None]:
    """Return some forward and backward passes of a map."""
    leaf = value.clone().requires_grad_()

    def work() -> None:
        for _ in range(CALLS):
            leaf.grad = None
            function(leaf).sum().backward()  # type: ignore[no-untyped-call]

    return work


def _round_trips(geoopt: Any) -> list[BenchRow]:
    generator = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.randn(256, DIM, generator=generator), dim=-1)
    rows = []
    for curvature in CURVATURES:
        ball, c = geoopt.PoincareBall(c=curvature), torch.tensor(curvature)
        for norm in NORMS:
            v = norm * direction
            ours = _error(log0(exp0(v, c), c), v)
            theirs = _error(ball.logmap0(ball.expmap0(v)), v)
            rows.append(
                BenchRow(
                    name=f"geometry: error of log0(exp0), c {curvature:g}, |v| {norm:g}",
                    value=ours,
                    unit="relative",
                    baseline=theirs,
                    against="geoopt, as it comes",
                    targets=(Target("value", "<=", max(theirs, ROUNDING)),),
                    detail=curvature != 1.0,
                )
            )
    return rows


def _error(found: Tensor, v: Tensor) -> float:
    """Return the largest |found - v| / |v| of a batch."""
    return float(((found - v).norm(dim=-1) / v.norm(dim=-1)).max())
