"""What a user installs: one import name, every package, every data file."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
ROOMS = {
    "bytropix": "bytropix",
    "datasets": "bytropix/datasets",
    "jobs": "bytropix/jobs",
    "pipelines": "bytropix/pipelines",
}
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"


def sources(suffix: str) -> set[str]:
    """Return every file of the rooms with a suffix, by the path that it is installed under."""
    return {
        f"{installed}/{path.relative_to(PROJECT / room).as_posix()}"
        for room, installed in ROOMS.items()
        for path in (PROJECT / room).rglob(f"*{suffix}")
    }


def build(kind: str, project: Path, out: Path) -> Path:
    """Build an sdist or a wheel of a project folder and return it."""
    out.mkdir()
    subprocess.run([sys.executable, "-c", BUILD, kind, str(out)], cwd=project, check=True, capture_output=True)
    return next(out.iterdir())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "stores", "demo")
    shutil.copytree(PROJECT, folder / "project", ignore=left_out)
    return build("sdist", folder / "project", folder / "out")


@pytest.fixture(scope="module")
def wheel_names(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in the wheel that is built from the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    with zipfile.ZipFile(build("wheel", next(folder.glob("bytropix-*")), folder / "out")) as archive:
        return set(archive.namelist())


def test_every_folder_with_code_is_a_listed_package() -> None:
    """A package that is missing in pyproject.toml works from a checkout and is gone from the wheel."""
    listed = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = {name.rpartition("/")[0].replace("/", ".") for name in sources(".py")}

    assert folders == set(listed)


def test_every_package_says_what_it_is() -> None:
    """A folder without __init__.py would be a namespace, which anything on the path may join."""
    folders = {name.rpartition("/")[0] for name in sources(".py")}

    assert {f"{folder}/__init__.py" for folder in folders} <= sources(".py")


def test_the_wheel_holds_every_source_and_recipe(wheel_names: set[str]) -> None:
    """All code, all recipes and the marker of types arrive at the user's."""
    assert sources(".py") | sources(".toml") | sources(".j2") | {"bytropix/py.typed"} <= wheel_names


def test_the_wheel_brings_one_import_name(wheel_names: set[str]) -> None:
    """A wheel with a top-level `datasets` would overwrite, and on removal delete, another project's package."""
    tops = {name.split("/")[0] for name in wheel_names}

    assert {"bytropix"} == {top for top in tops if not top.endswith(".dist-info")}
    assert len(tops) == 2


def test_the_sdist_holds_what_a_test_run_needs(sdist: Path) -> None:
    """Who has the sdist alone can read, build and test it."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tests = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "tests").rglob("*.py")}
    root = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "tox.ini", "toxfile.py"}

    assert tests | root <= names


def test_a_bare_import_of_the_folder_names_the_remedy() -> None:
    """In the checkout `import datasets` finds our folder: it says so, instead of being half a package."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    found = subprocess.run(
        [sys.executable, "-c", "import datasets"], cwd=PROJECT, env=environment, capture_output=True, text=True
    )

    assert found.returncode == 1
    assert "Import bytropix.datasets, or set PYTHONSAFEPATH=1" in found.stderr


def test_the_package_imports_from_anywhere(tmp_path: Path) -> None:
    """Outside the checkout the installed package is whole and brings no `datasets`, `jobs` or `pipelines`."""
    script = (
        "import importlib.util as u, bytropix.datasets, bytropix.jobs.cli, bytropix.pipelines.ingest; "
        "print([n for n in ('jobs', 'pipelines') if u.find_spec(n)], bytropix.__version__)"
    )
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    if "site-packages" not in __import__("bytropix").__file__:  # run from the checkout, without installation
        pytest.skip("bytropix is not installed here; tox installs it")
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )

    assert found.stdout.startswith("[] ")


def test_pins_are_of_what_is_declared() -> None:
    """Every dependency that pyproject.toml names is pinned in constraints.txt, so that CI installs one set."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    lines = (PROJECT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}

    names = {re.split(r"[\[>]", name)[0].lower().replace("_", "-") for name in declared}
    assert names - {"bytropix"} <= pinned
