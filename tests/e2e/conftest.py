"""Files of every kind, and the program run as a person runs it: in a process of its own."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bytropix

Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def bytropix_program() -> Program:
    """`bytropix_program("inspect", path)` runs the program to its end."""
    place = str(Path(bytropix.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": place, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}

    def call(*words: object, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bytropix", *map(str, words)],
            env=environment,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The recipe of a tiny model."""
    return Path(__file__).parents[1] / "jobs" / "tiny.toml"


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text in three scripts, broken UTF-8, NULs, runs of 0xFF, an empty file and a file in a folder."""
    folder = tmp_path_factory.mktemp("e2e") / "sources"
    (folder / "deep").mkdir(parents=True)
    draw = random.Random(3)
    for number in range(12):
        words = draw.choices(["sea", "ship", "calm", "море", "海は", "しずか", "sail", "grey"], k=500)
        (folder / f"{number:02}.txt").write_text(" ".join(words), encoding="utf-8")
    (folder / "deep" / "broken.txt").write_bytes(b"caf\xc3 \xe6\xb5 \xff\xfe \xed\xa0\x80 ok\n" * 200)
    (folder / "nulls.bin").write_bytes(b"\0" * 5000 + b"end")
    (folder / "ones.bin").write_bytes(b"\xff" * 5000)
    (folder / "line.txt").write_bytes(b"x" * 20000)
    (folder / "empty.txt").write_bytes(b"")
    return folder
