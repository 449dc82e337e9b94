"""Work on a Dask cluster, sources and stores on an object store: the same stores as here."""

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from bytropix.datasets.store import Store
from bytropix.errors import StoreError
from bytropix.pipelines.append import append_bytes
from bytropix.pipelines.config import CleanConfig, IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.sources import ReadOptions

Tree = Callable[[Path], dict[str, bytes]]
LARGE = IngestConfig(read=ReadOptions(text_field="text"), clean=CleanConfig(drop_duplicates=True))


def test_a_dask_cluster_makes_the_same_store(
    mixed: Path, mixed_config: IngestConfig, mixed_store: Path, tmp_path: Path, tree: Tree
) -> None:
    """Scans and parts on the workers of a cluster: the same files, and its dashboard is named."""
    said: list[str] = []
    ingest_bytes([mixed], tmp_path / "dask.bx", mixed_config, workers=2, dask=True, say=said.append)

    assert tree(tmp_path / "dask.bx") == tree(mixed_store)
    assert any("dashboard" in line for line in said)


@pytest.fixture
def bucket(s3_server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of an empty bucket."""
    name = f"pipelines-{abs(hash(request.node.name))}"
    files = fsspec.filesystem("s3")
    files.mkdir(name)
    yield f"s3://{name}"
    fsspec.filesystem("s3").rm(name, recursive=True)


def test_from_and_to_an_object_store(mixed: Path, bucket: str, tree: Tree, tmp_path: Path) -> None:
    """Sources and store on a server: two workers make the same store, and leave no spool file or receipt there."""
    fsspec.filesystem("s3").put(str(mixed), f"{bucket}/in/", recursive=True)
    url = f"{bucket}/out/s.bx"
    here = ingest_bytes([mixed], tmp_path / "here.bx", LARGE).store
    store = ingest_bytes([f"{bucket}/in/mixed"], url, LARGE, workers=2).store
    fsspec.filesystem("s3").get(url, str(tmp_path / "copy.bx"), recursive=True)
    files = {name: data for name, data in tree(here.path).items() if data != b"(folder)"}

    assert store.fingerprint == here.fingerprint
    assert {name: data for name, data in tree(tmp_path / "copy.bx").items() if data != b"(folder)"} == files
    with pytest.raises(StoreError, match=r"exists; complete it with --resume"):
        ingest_bytes([mixed], url, LARGE)
    assert ingest_bytes([mixed], url, LARGE, resume=True).skipped == len(store.manifest.parts)
    with pytest.raises(StoreError, match="lie in one another"):
        ingest_bytes([f"{bucket}/out"], f"{bucket}/out/t.bx", LARGE)


def test_append_to_an_object_store(mixed: Path, bucket: str, tmp_path: Path) -> None:
    """A store on a server gets its next version there."""
    url = f"{bucket}/s.bx"
    ingest_bytes([mixed / "a.txt"], url, LARGE)
    new = append_bytes(url, [mixed / "b.gz", mixed / "l.txt"]).store

    assert new.manifest.version == 2
    assert Store.open(url, version=1).manifest.version == 1
    assert set(new.manifest.dropped) == {"duplicate"}
