"""Stores of one corpus in every layout, and what plants faults in them."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bytropix.datasets.store import PartArrays, PartLayout, Store, open_storage, write_part
from bytropix.datasets.store.manifest import MANIFEST, manifest_text
from bytropix.datasets.store.schema import Manifest, PartRecord
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

Tree = Callable[[Path], dict[str, bytes]]
LAYOUTS = {
    "zstd": PartLayout(),
    "raw": PartLayout(codec="none"),
    "lz4": PartLayout(codec="lz4", codec_level=3),
    "tar": PartLayout(format="webdataset"),
}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of prose in two scripts, noise of more than two blocks, and an empty file; not to be changed."""
    generator = random.Random(1)
    folder = tmp_path_factory.mktemp("tools") / "corpus"
    (folder / "more").mkdir(parents=True)
    latin = ["the", "whale", "sea", "of", "harpoon", "and", "a", "Nantucket", "ship", "deep", "old", "captain"]
    cyrillic = ["война", "и", "мир", "князь", "сказал", "он", "не", "Наташа", "в", "лес"]
    for name, words in (("a.txt", latin), ("more/b.txt", cyrillic)):
        lines = [" ".join(generator.choices(words, k=generator.randint(3, 14))) for _ in range(2000)]
        (folder / name).write_text("\n".join(lines), "utf-8")
    (folder / "noise.bin").write_bytes(generator.randbytes(700_000))
    (folder / "empty.txt").touch()
    return folder


@pytest.fixture(scope="session")
def config() -> IngestConfig:
    """Return settings that make a train part of several blocks, a smaller one, and a val part of the corpus."""
    return IngestConfig(document_bytes=4096, part_bytes=700_000, val_fraction=0.1)


@pytest.fixture(scope="session")
def stores(corpus: Path, config: IngestConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the store of the corpus in every layout; not to be changed."""
    folder = tmp_path_factory.mktemp("stores")
    made = {}
    for name, layout in LAYOUTS.items():
        made[name] = ingest_bytes([corpus], folder / f"{name}.bx", replace(config, layout=layout)).store.path
    return made


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IngestConfig]:
    """Return a file and settings that make one small part of each split, for tests that make stores many times."""
    path = tmp_path_factory.mktemp("small") / "small.txt"
    generator = random.Random(2)
    words = ["whale", "sea", "of", "harpoon", "and", "a", "ship"]
    path.write_text("".join(f"{' '.join(generator.choices(words, k=9))}\n" for _ in range(600)))
    return path, IngestConfig(document_bytes=1024, val_fraction=0.2)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    """Return the name of each layout."""
    return str(request.param)


@pytest.fixture
def store(stores: dict[str, Path], layout: str, tmp_path: Path) -> Path:
    """Return a copy of the store in each layout that a test may harm."""
    return Path(shutil.copytree(stores[layout], tmp_path / "s.bx"))


def forge(
    place: Path,
    *,
    arrays: Callable[[PartArrays], PartArrays] = lambda arrays: arrays,
    record: Callable[[PartRecord], PartRecord] = lambda record: record,
    manifest: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> None:
    """Write the first part of a store anew with other content, and a manifest whose hashes are those of what is there.

    So only rules about the content can find what is wrong.
    """
    store = Store.open(place)
    storage, (first, *others) = open_storage(place), store.manifest.parts
    layout = PartLayout(format=first.format, codec=first.codec, codec_level=None)  # type: ignore[arg-type]
    written = write_part(
        storage,
        first.split,
        first.name,
        arrays(store.parts(first.split)[0].arrays()),
        layout=layout,
        spans=first.spans,
        patch_lengths=first.patch_lengths,
    )
    forged = manifest(replace(store.manifest, parts=(record(written), *others)))
    storage.write(MANIFEST, manifest_text(forged))
