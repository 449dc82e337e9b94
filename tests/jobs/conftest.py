"""One small store and one trained run of a tiny recipe, and the command line called in this process."""

import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bytropix
from bytropix.datasets.store import Store
from bytropix.gaad.config import RegionConfig
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.cli import main
from bytropix.jobs.recipe import Recipe, read_recipe
from bytropix.jobs.train import Training
from bytropix.jobs.training_films import make_training_films
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video

TINY = Path(__file__).with_name("tiny.toml")
TINY_VIDEO = Path(__file__).with_name("tiny-video.toml")
WORDS = ["the", "sea", "was", "not", "calm", "and", "over", "it", "went", "a", "ship", "with", "seven", "sails"]


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """Return the one object on stdout."""
        assert self.code == 0, self.err
        found: dict[str, Any] = json.loads(self.out)
        return found

    def refusal(self) -> str:
        """Return the one line of an error, after checking that it is one."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.out == ""
        lines = [line for line in self.err.splitlines() if line and not re.search(r"\[\d\d:\d\d", line)]  # no bars
        assert len(lines) == 1, self.err
        assert lines[0].startswith("bytropix: ")
        return lines[0]


Cli = Callable[..., Answer]


def write_sources(folder: Path, files: int = 12) -> Path:
    """Write text files in two scripts and a binary one, some longer than a document."""
    folder.mkdir()
    draw = random.Random(1)
    for number in range(files):
        text = " ".join(draw.choice(WORDS) for _ in range(300))
        (folder / f"{number:02}.txt").write_text(text + "\n海はしずかで、風はなかった。\n", encoding="utf-8")
    (folder / "long.txt").write_text("\n".join(" ".join(draw.choices(WORDS, k=9)) for _ in range(150)), "utf-8")
    (folder / "binary.bin").write_bytes(bytes(range(256)) * 4 + b"\xff" * 300 + b"\0" * 300)
    return folder


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The TOML recipe of a tiny model."""
    return TINY


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The recipe of a tiny model."""
    return read_recipe(TINY)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small files."""
    return write_sources(tmp_path_factory.mktemp("data") / "sources")


@pytest.fixture(scope="session")
def store_path(sources: Path) -> Path:
    """A store of the sources; do not change it."""
    path = sources.parent / "small.bx"
    ingest_bytes([sources], path, IngestConfig(val_fraction=0.3, document_bytes=4096))
    return path


@pytest.fixture
def store(store_path: Path) -> Store:
    """The store of the sources, freshly opened."""
    return Store.open(store_path)


@pytest.fixture(scope="session")
def trained(store_path: Path, recipe: Recipe) -> Path:
    """A run of the tiny recipe, eight steps long; do not change it."""
    path = store_path.parent / "trained"
    assert Training(ByteTask(recipe, Store.open(store_path)), path, resume=False)()
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def tiny_video() -> Path:
    """The TOML recipe of a tiny video model."""
    return TINY_VIDEO


@pytest.fixture(scope="session")
def clip_store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of clips of 32 x 32 pixels, 5 films to train on and 7 in val; do not change it."""
    folder = tmp_path_factory.mktemp("clips")
    make_training_films(folder / "films", 12, size=(32, 32), frames=20)
    regions = RegionConfig(regions=4, motion_regions=2)
    config = VideoConfig(size=(32, 32), clip_frames=8, val_fraction=0.2, regions=regions)
    return ingest_video([folder / "films"], folder / "clips.bx", config).store.path


@pytest.fixture
def clip_store(clip_store_path: Path) -> Store:
    """The store of clips, freshly opened."""
    return Store.open(clip_store_path)


@pytest.fixture(scope="session")
def trained_video(clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny video recipe, its autoencoder's run inside, six steps and five; do not change it."""
    run = tmp_path_factory.mktemp("video-runs") / "run"
    words = ["train", "video", "--store", clip_store_path, "--run", run, "--recipe", TINY_VIDEO]
    assert main([str(word) for word in words]) == 0
    return run


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process: `cli("evaluate", "--run", path)` returns an Answer."""

    def call(*words: object) -> Answer:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Variables under which another process finds this bytropix and uses one thread."""
    place = str(Path(bytropix.__file__).parents[1])
    return os.environ | {"PYTHONPATH": place, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(scope="session")
def program() -> list[str]:
    """The first words of a command line that runs bytropix in another process."""
    return [sys.executable, "-m", "bytropix"]
