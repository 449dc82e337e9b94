"""Films to train on: even motion, soft edges, the same every time, and some of them held back."""

from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets import ClipStream
from bytropix.errors import ConfigError
from bytropix.jobs.training_films import Shape, draw, make_training_films, moving_shapes
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video


def test_a_film_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    """Film 1 of two has the bytes of film 1 of three; another seed makes other films."""
    two, three, other = (
        make_training_films(tmp_path / name, count, size=(32, 48), frames=8, seed=seed)
        for name, count, seed in (("a", 2, 0), ("b", 3, 0), ("c", 2, 1))
    )

    assert [film.path.name for film in three] == ["film-000.mp4", "film-001.mp4", "film-002.mp4"]
    assert two[1].path.read_bytes() == three[1].path.read_bytes()
    assert two[1].path.read_bytes() != other[1].path.read_bytes()
    assert two[0].images.shape == (8, 32, 48, 3)


def test_shapes_keep_their_speed_between_edges() -> None:
    """2 to 5 pixels a frame, the same from frame to frame but where an edge turns one back; never outside the frame."""
    for number in range(20):
        _, boxes = moving_shapes(40, 48, 64, seed=(3, number))
        corners = boxes[..., :2].astype(np.float64)
        steps = np.diff(corners, axis=0)
        even = np.abs(np.diff(np.abs(steps), axis=0)).max(-1) < 1e-3
        paces = np.hypot(*np.moveaxis(steps, -1, 0))[:-1][even]

        assert even.mean() > 0.5
        assert paces.min() >= 2 - 1e-3
        assert paces.max() <= 5 + 1e-3
        assert boxes.min() >= -1e-3
        assert (boxes[..., 2:] <= np.array([64, 48]) + 1e-3).all()


@pytest.mark.parametrize("is_round", [False, True])
def test_a_shape_weighs_the_same_wherever_it_is(*, is_round: bool) -> None:
    """What it covers of the pixels is its area, also between whole places, and its middle is right."""
    shape = Shape(colour=(200, 200, 200), round=is_round, side=12, start=(0, 0), speed=(0, 0))
    corners = np.array([[8.0, 9.0], [8.25, 9.5], [8.5, 9.75]])
    images = np.zeros((3, 32, 40, 3), np.uint8)
    draw(images, shape, corners)
    cover = images[..., 0] / 200
    y, x = np.mgrid[:32, :40] + 0.5

    np.testing.assert_allclose(cover.sum((1, 2)), 36 * np.pi if is_round else 144, rtol=0.01)
    centres = np.stack([(cover * axis).sum((1, 2)) / cover.sum((1, 2)) for axis in (x, y)], axis=1)
    np.testing.assert_allclose(centres, corners + 6, atol=0.02)


def test_films_make_a_store_with_both_splits(tmp_path: Path) -> None:
    """Each film is one scene, some are held back, and to repeat a frame costs far more than the encoding did."""
    make_training_films(tmp_path / "films", 10, size=(32, 32), frames=16)
    config = VideoConfig(size=(32, 32), clip_frames=4, val_fraction=0.3)
    store = ingest_video([tmp_path / "films"], tmp_path / "films.bx", config).store
    clips = {split: next(iter(ClipStream(store, split=split, batch=8))) for split in ("train", "val")}

    assert sum(ClipStream(store, split=split, batch=1).clips for split in clips) == 10 * 16 // 4
    for batch in clips.values():
        frames = batch.frames.double()
        assert float((frames[:, 1:] - frames[:, :-1]).square().mean()) > 150


def test_films_that_cannot_be(tmp_path: Path) -> None:
    """Counts and sizes out of range are refused by name."""
    for settings, message in (
        ({"count": 0}, "1 to 1000"),
        ({"size": (33, 32)}, "even sides"),
        ({"size": (8, 32)}, "at least 16"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_training_films(tmp_path, **settings)  # type: ignore[arg-type]
