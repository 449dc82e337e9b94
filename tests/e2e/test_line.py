"""The whole line through the program: files to store to model to figures to text."""

import filecmp
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SETTINGS = ("--document-bytes", 4096, "--val-fraction", 0.2, "--part-bytes", 16384)


def same_tree(one: Path, other: Path) -> list[str]:
    """Return the names of all files below two folders, after comparing names and bytes."""
    names = [sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) for root in (one, other)]
    assert names[0] == names[1]
    files = [name for name in names[0] if (one / name).is_file()]
    same, differ, errors = filecmp.cmpfiles(one, other, files, shallow=False)
    assert (len(same), differ, errors) == (len(files), [], [])
    return files


def test_the_whole_line(bytropix_program: Any, sources: Path, tiny: Path, tmp_path: Path) -> None:
    """Every step ends with 0, takes what the step before it made, and tells figures that fit together."""
    store, run = tmp_path / "all.bx", tmp_path / "runs" / "one"
    total = sum(path.stat().st_size for path in sources.rglob("*") if path.is_file())

    done = bytropix_program("ingest", "bytes", sources, "--out", store, *SETTINGS, "--workers", 4, "--json")
    assert done.returncode == 0, done.stderr
    ingested = json.loads(done.stdout)
    assert sum(split["bytes"] for split in ingested["splits"].values()) == total

    done = bytropix_program("inspect", store, "--json")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)

    done = bytropix_program("train", "bytes", "--store", store, "--run", run, "--recipe", tiny)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"trained 8 steps: {run / 'checkpoints' / 'step-00000008'}" in done.stderr

    done = bytropix_program("evaluate", "--run", run, "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["bytes"] == ingested["splits"]["val"]["bytes"]
    assert 0 < figures["bits_per_byte"] < 8.5
    assert 0 < figures["xz_bits_per_byte"] < 8.5
    assert 0 < figures["ngram_bits_per_byte"] < 8.5

    scored = sources / "deep" / "broken.txt"
    done = bytropix_program("score", scored, "--run", run, "--out", tmp_path / "nats.npy", "--json")
    assert done.returncode == 0, done.stderr
    nats = np.load(tmp_path / "nats.npy", allow_pickle=False)
    assert (nats.shape, nats.dtype) == ((scored.stat().st_size,), np.float32)
    bits = json.loads(done.stdout)["bits_per_byte"]
    assert bits == pytest.approx(nats.sum(dtype=np.float64) / math.log(2) / len(nats))

    flags = ("--run", run, "--max-bytes", 20, "--seed", 1)
    done = bytropix_program("generate", *flags, "--prompt", "海は")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("海は")
    asked = bytropix_program("generate", *flags, "--interactive", stdin="海は\nquit\n")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.removeprefix("> ").removesuffix("> ") == done.stdout.removeprefix("海は")


def test_a_store_is_the_same_for_any_number_of_workers(bytropix_program: Any, sources: Path, tmp_path: Path) -> None:
    """One process and four leave trees that `diff -r` cannot tell apart."""
    for workers in (1, 4):
        out = tmp_path / f"{workers}.bx"
        done = bytropix_program("ingest", "bytes", sources, "--out", out, *SETTINGS, "--workers", workers)
        assert done.returncode == 0, done.stderr

    assert len(same_tree(tmp_path / "1.bx", tmp_path / "4.bx")) > 10


def test_the_demo_runs_the_line_on_the_standard_library(bytropix_program: Any, tiny: Path, tmp_path: Path) -> None:
    """With a tiny recipe: figures beside xz's, a sample, where the run is and how to look at it."""
    folder = tmp_path / "demo"
    recipe = tmp_path / "tiny.toml"
    # A long context makes the held-out files fewer windows.
    recipe.write_text(tiny.read_text("utf-8").replace("context = 64", "context = 512"), encoding="utf-8")
    done = bytropix_program("demo", "--folder", folder, "--recipe", recipe)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for name in ("model", "xz -9e", "order-4 n-gram"):
        assert any(line.startswith(name) and line.endswith("bits per byte") for line in lines), name
    assert any(line.startswith("  | ") for line in lines)
    assert f"run: {folder / 'run'}" in lines
    assert f"curves: tensorboard --logdir {folder / 'run'}" in lines
    assert (folder / "stdlib.bx" / "manifest.json").is_file()
    assert list((folder / "sources").rglob("*.py"))


def test_the_demo_leaves_a_folder_of_others_alone(bytropix_program: Any, tmp_path: Path) -> None:
    """It removes what a demo left, and nothing else."""
    (tmp_path / "letter.txt").write_text("dear")
    done = bytropix_program("demo", "--folder", tmp_path)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "letter.txt").read_text() == "dear"
