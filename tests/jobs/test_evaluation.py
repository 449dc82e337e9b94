"""Bits per byte: every byte once, by any road the same figure, and xz's beside it."""

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bytropix.datasets.store import Store
from bytropix.errors import ConfigError
from bytropix.jobs.commands.evaluate import xz_bits_per_byte
from bytropix.jobs.evaluation import bits_per_byte, document_nats, file_nats
from bytropix.jobs.recipe import ByteModel, Recipe, build_model
from bytropix.jobs.run_folder import RunFolder


@pytest.fixture(scope="module")
def model(trained: Path) -> ByteModel:
    """The trained model; do not change it."""
    return RunFolder(trained).model()


def documents(store: Store, split: str) -> list[np.ndarray[Any, Any]]:
    """Return the documents of a split."""
    found = []
    for part in store.parts(split):
        data = part.read("bytes", 0, part.n_bytes)
        found += np.split(data, part.doc_ends[:-1])
    return found


def test_each_byte_is_scored_once(model: ByteModel, store: Store) -> None:
    """The bytes counted are the bytes of the split, for strides that divide nothing evenly."""
    there = sum(len(document) for document in documents(store, "val"))
    told: list[int] = []

    assert there == sum(part.n_bytes for part in store.parts("val")) > 2000
    for stride in (None, 64, 27):
        told.clear()
        result = bits_per_byte(model, store, split="val", context=64, stride=stride, progress=told.append)
        assert result.n_bytes == sum(told) == there


def test_the_figure_is_the_sum_over_the_documents_scored_alone(model: ByteModel, store: Store) -> None:
    """Batches, padding and parts leave no trace: each document by itself gives the same nats."""
    for stride in (64, 20):
        alone = 0.0
        for document in documents(store, "val"):
            nats = document_nats(model, store.patcher(), document, context=64, stride=stride)
            assert len(nats) == len(document)
            assert (nats > 0).all()
            alone += float(nats.sum(dtype=np.float64))
        together = bits_per_byte(model, store, split="val", context=64, stride=stride)
        assert together.nats == pytest.approx(alone, rel=1e-5)


def test_the_figure_does_not_depend_on_the_batch(model: ByteModel, store: Store) -> None:
    """One window at a time gives what many give."""
    found = [bits_per_byte(model, store, split="val", context=64, batch=batch).nats for batch in (3, 16, 100)]

    assert found == pytest.approx([found[0]] * 3, rel=1e-6)


def test_a_byte_is_scored_from_no_more_than_its_window(model: ByteModel, store: Store) -> None:
    """The nats of a byte of the first window do not change with what comes after, nor with what is far before."""
    document = max(documents(store, "val"), key=len)
    whole = document_nats(model, store.patcher(), document, context=64, stride=32)
    cut = document_nats(model, store.patcher(), document[:100], context=64, stride=32)

    np.testing.assert_allclose(cut, whole[:100], rtol=1e-4, atol=1e-5)
    assert not np.allclose(document_nats(model, store.patcher(), document, context=64, stride=64), whole)


def test_an_untrained_model_knows_about_nothing(recipe: Recipe, store: Store) -> None:
    """It stands near the 8 bits of a uniform guess, not below."""
    torch.manual_seed(0)
    model = build_model(recipe).eval()

    assert 7.9 < bits_per_byte(model, store, split="val", context=64).bits_per_byte < 8.6


def test_a_trained_model_knows_more(model: ByteModel, store: Store) -> None:
    """Eight steps are enough to tell frequent bytes from rare ones."""
    assert bits_per_byte(model, store, split="val", context=64).bits_per_byte < 7.6


@pytest.mark.parametrize("stride", [0, -1, 65])
def test_a_stride_that_would_skip_bytes_is_refused(model: ByteModel, store: Store, stride: int) -> None:
    """Strides go from 1 to the context."""
    with pytest.raises(ConfigError, match="stride"):
        bits_per_byte(model, store, split="val", context=64, stride=stride)


def test_evaluating_leaves_the_model_and_the_random_state_alone(recipe: Recipe, store: Store) -> None:
    """The mode is given back, dropout is off under way, and no random number is drawn."""
    model = build_model(recipe)
    for mode in (True, False):
        model.train(mode)
        before = torch.get_rng_state()
        first = bits_per_byte(model, store, split="val", context=64, at_most=500)
        second = bits_per_byte(model, store, split="val", context=64, at_most=500)
        assert first == second
        assert all(module.training is mode for module in model.modules())
        assert torch.equal(before, torch.get_rng_state())


def test_a_short_evaluation_ends_soon(model: ByteModel, store: Store) -> None:
    """`at_most` stops after the batch that reaches it."""
    result = bits_per_byte(model, store, split="val", context=64, batch=2, at_most=300)

    assert 300 <= result.n_bytes <= 300 + 2 * 64


def test_the_commands_agree(cli: Any, run: Path, tmp_path: Path) -> None:
    """The nats that `score` writes of a file add up to what `evaluate` says of a store of that file's documents.

    That store has a table of its own; the run cuts both by the one it was trained with.
    """
    text = "".join(f"line {number}: the sea was calm. 海\n" for number in range(700)).encode() + bytes(range(256))
    (tmp_path / "file.bin").write_bytes(text)
    store = tmp_path / "file.bx"
    words = ("--out", store, "--workers", 1, "--document-bytes", 4096, "--val-fraction", 0.5)
    assert cli("ingest", "bytes", tmp_path / "file.bin", *words).code == 0
    scored = cli("score", tmp_path / "file.bin", "--run", run, "--out", tmp_path / "nats.npy", "--json").json()
    nats = np.load(tmp_path / "nats.npy")
    splits = [
        cli("evaluate", "--run", run, "--store", store, "--split", split, "--json").json() for split in ("train", "val")
    ]

    assert (nats.dtype, nats.shape) == (np.float32, (len(text),))
    assert scored["bytes"] == len(text) == sum(split["bytes"] for split in splits)
    assert scored["nats"] == pytest.approx(nats.sum(dtype=np.float64))
    assert scored["nats"] == pytest.approx(sum(split["nats"] for split in splits), rel=1e-4)
    assert scored["bits_per_byte"] == pytest.approx(scored["nats"] / math.log(2) / len(text))


def test_evaluate_tells_all_that_its_figure_rests_on(cli: Any, trained: Path, store_path: Path) -> None:
    """Bytes, context, stride and what stands beside the model."""
    figures = cli("evaluate", "--run", trained, "--store", store_path, "--stride", 16, "--json").json()

    assert figures["bits_per_byte"] == pytest.approx(figures["nats"] / math.log(2) / figures["bytes"])
    assert (figures["context"], figures["stride"], figures["minimum_context"]) == (64, 16, 48)
    assert (figures["checkpoint"], figures["split"], figures["ngram_order"]) == ("step-00000008", "val", 4)
    assert figures["bytes"] == sum(part.n_bytes for part in Store.open(store_path).parts("val"))
    assert figures["ngram_fitted_bytes"] == sum(part.n_bytes for part in Store.open(store_path).parts("train"))
    assert 0 < figures["xz_bits_per_byte"] < figures["ngram_bits_per_byte"] + 8
    assert 0 < figures["ngram_bits_per_byte"] < figures["bits_per_byte"]


def test_words_for_people_hold_the_same_figures(cli: Any, trained: Path, store_path: Path) -> None:
    """Three rows and what was scored."""
    figures = cli("evaluate", "--run", trained, "--store", store_path, "--json").json()
    said = cli("evaluate", "--run", trained, "--store", store_path).out

    for key in ("bits_per_byte", "xz_bits_per_byte", "ngram_bits_per_byte"):
        assert f"{figures[key]:.4f} bits per byte" in said
    assert f"{figures['bytes']:,} bytes" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--split", "test"), "split 'test' holds no bytes (splits: train, val)"),
        (("--stride", 65), "stride"),
        (("--stride", -1), "stride"),
        (("--batch", 0), "batch"),
        (("--device", "tpu"), "device"),
    ],
)
def test_flags_of_evaluate_that_cannot_work_are_one_line(
    cli: Any, trained: Path, store_path: Path, flags: tuple[object, ...], message: str
) -> None:
    """The value and the remedy are named."""
    assert message in cli("evaluate", "--run", trained, "--store", store_path, *flags).refusal()


def test_score_refuses_what_has_no_bytes_and_what_cannot_be_written(cli: Any, trained: Path, tmp_path: Path) -> None:
    """Missing and empty files, a folder, and an --out in no folder; no file is left."""
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "full").write_bytes(b"x")
    out = tmp_path / "nats.npy"
    for name in ("none", "empty", "."):
        assert str(tmp_path / name) in cli("score", tmp_path / name, "--run", trained, "--out", out).refusal()
    for place in (tmp_path / "nowhere" / "nats.npy", tmp_path):
        assert str(place) in cli("score", tmp_path / "full", "--run", trained, "--out", place).refusal()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]


@pytest.mark.parametrize("data", [b"\0", b"\xff" * 200, bytes(range(256)), "海🚢".encode() * 30 + b"\xe6\xb5"])
def test_any_bytes_can_be_scored(model: ByteModel, store: Store, data: bytes) -> None:
    """Bytes of any kind are data: each has a finite cost."""
    nats = file_nats(model, store.patcher(), data, document_bytes=4096, context=64)

    assert nats.shape == (len(data),)
    assert np.isfinite(nats).all()
    assert (nats > 0).all()


def test_the_probabilities_of_a_byte_add_up_to_one(model: ByteModel, store: Store) -> None:
    """What is scored is a distribution over 256 bytes: replacing the last byte by each possible one covers it."""
    rows = np.repeat(documents(store, "val")[0][None, :40], 256, axis=0)
    starts = np.repeat(store.patcher()(rows[0])[1][None], 256, axis=0)
    rows[:, -1] = np.arange(256)
    with torch.no_grad():
        nats = model.nats(torch.from_numpy(rows), torch.from_numpy(starts), int(starts[0].sum()))

    assert nats[:, -1].neg().exp().sum().item() == pytest.approx(1, abs=1e-4)
    assert nats[:, -1].std() > 0


def test_xz_is_what_the_program_makes_of_the_bytes(store: Store, tmp_path: Path) -> None:
    """The figure beside the model's is that of `xz -9e` on the documents end to end."""
    program = shutil.which("xz")
    if program is None:
        pytest.skip("no xz program here")
    parts = store.parts("val")
    data = b"".join(part.read("bytes", 0, part.n_bytes).tobytes() for part in parts)
    (tmp_path / "val").write_bytes(data)
    packed = subprocess.run([program, "-9e", "-c", str(tmp_path / "val")], capture_output=True, check=True).stdout

    assert xz_bits_per_byte(parts) == pytest.approx(8 * len(packed) / len(data), abs=8 * 8 / len(data))
