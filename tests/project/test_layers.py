"""Imports go one way: jobs -> pipelines, datasets -> core; read from the source of every module."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PLAIN = {"bytropix.config", "bytropix.errors", "bytropix.version", "bytropix"}
ARRAYS = {"numpy", "numba"}

# Room -> what its modules may import besides themselves, the standard library and PLAIN. The most exact room counts.
MAY_IMPORT: dict[str, set[str]] = {
    "bytropix": {"torch"} | ARRAYS,
    "bytropix/gaad": {"torch"} | ARRAYS,
    "bytropix/geometry": {"torch"},
    "bytropix/patching": ARRAYS,
    "bytropix/nesting": {"torch", "bytropix.geometry", "bytropix.kernels"} | ARRAYS,
    "bytropix/byte_lm": {"torch", "bytropix.nesting", "bytropix.patching", "bytropix.kernels"} | ARRAYS,
    "bytropix/video": {"torch", "diffusers", "bytropix.nesting", "bytropix.geometry", "bytropix.gaad"} | ARRAYS,
    "bytropix/optim": {"torch", "bytropix.geometry"},
    "datasets/store": {"bytropix.patching", "av", "fsspec", "google_crc32c", "numcodecs", "PIL", "zarr"} | ARRAYS,
    "datasets": {"torch", "llvmlite", "bytropix.patching", "bytropix.datasets.store"} | ARRAYS,
    "pipelines": {"bytropix.patching", "bytropix.datasets.store", "dask", "datasketch", "distributed", "fsspec"}
    | ARRAYS,
    "pipelines/decoders": {"numpy", "av", "decord"},
    "pipelines/video": {"bytropix.gaad", "bytropix.datasets.store", "bytropix.pipelines", "av"} | ARRAYS,
    "pipelines/sources": {"bytropix.datasets.store.tar_walk", "fsspec", "pyarrow", "warcio", "zstandard"} | ARRAYS,
    "jobs": {"bytropix", "torch", "tyro", "tqdm", "safetensors", "tensorboard", "google_crc32c", "zarr", "geoopt"}
    | {"distributed", "hypothesis", "jinja2", "litdata", "markupsafe", "numcodecs", "psutil", "pyarrow", "streaming"}
    | {"PIL", "av", "decord", "torchmetrics", "warcio", "webdataset", "zstandard"}
    | ARRAYS,
}
MODULES = sorted(
    path for room in ("bytropix", "datasets", "jobs", "pipelines") for path in (PROJECT / room).rglob("*.py")
)
FILES = {"fsspec", "glob", "io", "os", "pathlib", "shutil", "sqlite3", "tempfile", "zarr"}


def imported(path: Path) -> Iterator[str]:
    """Give the dotted name of every import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from bytropix import x` names the module bytropix.x where there is one.
            yield from (
                (f"bytropix.{alias.name}" for alias in node.names) if node.module == "bytropix" else [node.module or ""]
            )


def room_of(path: Path) -> str:
    """Return the most exact room that a file lies in."""
    name = path.relative_to(PROJECT).as_posix()
    return max((room for room in MAY_IMPORT if name.startswith(f"{room}/")), key=len)


def below(name: str, packages: set[str]) -> bool:
    """Whether a module is one of the packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def allowed(name: str, room: str) -> bool:
    """Whether a module of a room may import `name`."""
    own = room.replace("/", ".")
    own = own if own.startswith("bytropix") else f"bytropix.{own}"
    if name in PLAIN | {"_typeshed"} or name.split(".")[0] in sys.stdlib_module_names:
        return True
    # The room `bytropix` is its few files at the top; as a package it would be everything.
    return below(name, MAY_IMPORT[room] | ({own} if own != "bytropix" else {"bytropix.jobs.cli"}))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_imports_go_one_way(path: Path) -> None:
    """A module imports what its room may, so that the core never meets a job and a pipeline never meets a model."""
    room = room_of(path)

    assert [name for name in imported(path) if not allowed(name, room)] == []


def test_the_core_knows_no_files() -> None:
    """Models, geometry and patching work on tensors and arrays: no module of theirs can open a path."""
    core = [path for path in MODULES if room_of(path).startswith("bytropix/")]
    touching = {
        path.relative_to(PROJECT).as_posix(): name for path in core for name in imported(path) if below(name, FILES)
    }

    assert core
    assert touching == {}


def test_no_module_takes_the_name_of_a_package() -> None:
    """A script's folder comes first on Python's path: a file `zarr.py` in it would stand before the package."""
    inner = {path for path in MODULES if path.parent.name in {"bytropix", "datasets", "jobs", "pipelines"}}
    names = {path.stem for path in inner} - {"__init__", "__main__"}

    assert set() == names & (set(sys.stdlib_module_names) | {"datasets", "numba", "torch", "tyro", "zarr"})
