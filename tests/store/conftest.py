"""A store of several blocks in each codec."""

from pathlib import Path

import numpy as np
import pytest

from bytropix.datasets.store import PartLayout
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes


@pytest.fixture(scope="session", params=["zstd", "none"])
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with two train parts and a val part, of a text, noise, and an empty file; not to be changed."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "data").mkdir()
    generator = np.random.default_rng(0)
    words = np.array(["whale ", "sea ", "of ", "harpoon ", "and ", "a ", "ship\n"])
    (folder / "data" / "a.txt").write_text("".join(words[generator.integers(0, 7, 200_000)]))
    (folder / "data" / "noise").write_bytes(generator.bytes(300_000))
    (folder / "data" / "empty").touch()
    config = IngestConfig(part_bytes=700_000, val_fraction=0.1, layout=PartLayout(codec=request.param))
    return ingest_bytes([folder / "data"], folder / "s.bx", config).store.path
