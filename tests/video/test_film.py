"""The small films hold what they say they hold, after encoding too."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from bytropix.jobs.film import FilmSet, make_films
from bytropix.pipelines.video.scenes import SceneFinder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> FilmSet:
    """Return the small films."""
    return make_films(tmp_path_factory.mktemp("films"))


def read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return the frames of a file and their times."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    images = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    return images, np.array([float(frame.time or 0) for frame in frames])


@pytest.mark.parametrize("name", ["shapes", "zoom", "cuts", "tall"])
def test_a_file_shows_its_pictures_at_their_times(films: FilmSet, name: str) -> None:
    """Encoding costs a few levels and nothing else."""
    film = films[name]
    images, times = read(film.path)

    assert images.shape == film.images.shape
    assert times == pytest.approx(film.times, abs=1e-4)
    assert np.abs(images.astype(int) - film.images).mean() < 6


@pytest.mark.parametrize("name", ["shapes", "tall"])
def test_the_boxes_are_where_the_shapes_are(films: FilmSet, name: str) -> None:
    """The red square fills its box in every frame, and moves; the disc is yellow in the middle of its own."""
    film = films[name]

    assert film.boxes.shape == (len(film.images), 2, 4)
    for image, (square, disc) in zip(film.images, film.boxes.astype(int).tolist(), strict=True):
        inside = image[square[1] : square[3], square[0] : square[2]].reshape(-1, 3)
        assert set(map(tuple, inside.tolist())) <= {(230, 40, 30), (250, 230, 60)}  # the disc lies over the square
        middle = image[(disc[1] + disc[3]) // 2, (disc[0] + disc[2]) // 2]
        assert middle.tolist() == [250, 230, 60]
    steps = np.abs(np.diff(film.boxes, axis=0)).max(axis=(1, 2))
    assert steps.min() >= 1


def test_the_scenes_are_found_in_the_encoded_film(films: FilmSet) -> None:
    """Cuts, the black stretch and the still picture, half a second late; not the flash."""
    film = films["cuts"]
    finder = SceneFinder()
    finder.feed(*read(film.path))
    marks = finder.finish()
    frozen = np.flatnonzero(marks.frozen)

    assert np.flatnonzero(marks.starts).tolist() == [0, *film.cuts]
    assert np.flatnonzero(marks.black).tolist() == list(range(*film.black))
    assert film.still[0] + 15 <= frozen[0] <= film.still[0] + 18
    assert frozen.tolist() == list(range(int(frozen[0]), film.still[1]))


def test_the_damaged_file_can_be_opened_and_not_read_to_its_end(films: FilmSet) -> None:
    """Its header promises more frames than are whole; the other refused file is no video at all."""
    damaged, notes = films.refused
    with av.open(str(damaged)) as container, pytest.raises(av.error.InvalidDataError):
        list(container.decode(video=0))
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(notes))


def test_the_films_are_the_same_every_time(
    films: FilmSet, tmp_path: Path, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    """Bit for bit."""
    make_films(tmp_path)

    assert tree(tmp_path) == tree(films["tall"].path.parent)
