"""Small films, settings that make several parts of them, and the store that one process makes."""

from pathlib import Path

import pytest

from bytropix.jobs.film import FilmSet, make_films
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video

FRAMES = 40  # of a part


@pytest.fixture(scope="session")
def film_set(tmp_path_factory: pytest.TempPathFactory) -> FilmSet:
    """Return four films, a damaged one and a text that calls itself a video; not to be changed."""
    return make_films(tmp_path_factory.mktemp("video") / "films")


@pytest.fixture(scope="session")
def film_folder(film_set: FilmSet) -> Path:
    """Return their folder."""
    return film_set.films[0].path.parent


@pytest.fixture(scope="session")
def small_video() -> VideoConfig:
    """Return settings under which every film but one is longer than a part, and the sides are even."""
    return VideoConfig(size=(32, 48), clip_frames=8, part_bytes=FRAMES * 32 * 48 * 3, val_fraction=0.5)


@pytest.fixture(scope="session")
def film_store(film_folder: Path, small_video: VideoConfig) -> Path:
    """Return the store that an uninterrupted run of one process makes of all films; not to be changed."""
    return ingest_video([film_folder], film_folder.parent / "whole.bx", small_video, max_bad=0.5).store.path
