"""The benchmark of region maps: figures, baselines and targets, and a port that is the original."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bytropix.gaad.roi import RegionSampler
from bytropix.jobs.bench import BENCHES
from bytropix.jobs.bench import gaad as bench
from bytropix.jobs.bench.original_regions import original_regions
from bytropix.jobs.bench.rows import BenchSettings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchSettings:
    """One turn at small sizes."""
    monkeypatch.setattr(bench, "MAPS", 2)
    monkeypatch.setattr(bench, "FRAMES", 4)
    monkeypatch.setattr(bench, "BATCH", 2)
    return BenchSettings(repeats=1, megabytes=0.5, data=None, folder=tmp_path)


def test_rows_stand_beside_the_original(settings: BenchSettings) -> None:
    """A row for each frame size in ms, five of frames a second, each with a baseline and a target."""
    rows = BENCHES["gaad"](settings)

    assert all(row.name.startswith("gaad: ") for row in rows)
    assert [row.unit for row in rows] == ["ms"] * len(bench.SIZES) + ["frames/s"] * (len(rows) - len(bench.SIZES))
    assert len(rows) == len(bench.SIZES) + 5
    assert all(row.value and row.baseline and row.ratio and row.targets for row in rows)


def test_squares_move() -> None:
    """The frames of the bench differ from each other, and are the same when made again."""
    frames = bench.moving_squares(3, 32)

    assert (frames[0] != frames[1]).any()
    np.testing.assert_array_equal(frames, bench.moving_squares(3, 32))


def test_sampling_is_compared_with_the_same_figures() -> None:
    """What sampling stands beside is slower, not other: box by box the features are the same."""
    features = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[0.0, 0.0, 128.0, 128.0], [20.0, 7.5, 61.0, 99.25], [100.0, 3.0, 128.0, 17.0]])
    ours = RegionSampler(boxes, image_size=(128, 128), map_size=(16, 16), output_size=(4, 4))(features)

    torch.testing.assert_close(bench.roi_one_by_one(features, boxes / 8, 4), ours, atol=1e-5, rtol=0)


def test_port_repeats_its_last_box() -> None:
    """The port keeps the original's fault: where boxes run out, the last of each half comes again."""
    boxes = original_regions(16, 16, 64)

    assert len(boxes) == 64
    assert len(set(boxes[:32])) == 11
    assert boxes[11:32] == [boxes[10]] * 21
