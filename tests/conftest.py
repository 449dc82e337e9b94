"""What tests of every room share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real files (`text/`, `dna/`, `hostile/`), in `shared/data` beside the checkout, or in BYTROPIX_SHARED_DATA.

    A clone without them still passes: the tests that need them are skipped, with this reason.
    """
    folder = Path(os.environ.get("BYTROPIX_SHARED_DATA", PROJECT.parent / "shared" / "data"))
    if not (folder / "text").is_dir():
        pytest.skip(f"no real files at {folder}; BYTROPIX_SHARED_DATA names another folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models on many threads are slower, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
