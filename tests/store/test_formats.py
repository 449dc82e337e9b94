"""Every layout of a part holds the same arrays; plain zarr and plain webdataset read it without a line of ours."""

import json
import os
import subprocess
import sys
import tarfile
import uuid
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.datasets.store import (
    CODECS,
    Part,
    PartArrays,
    PartLayout,
    Store,
    doc_meta_line,
    open_part,
    open_storage,
    write_part,
)
from bytropix.datasets.store.tar_part import SAMPLE_BYTES
from bytropix.errors import ConfigError

ENDS = [1, 9, 500_001, 500_001 + SAMPLE_BYTES, 500_001 + 2 * SAMPLE_BYTES + 1, 2_900_000, 3_000_001]
LAYOUTS = [*(PartLayout(codec=codec) for codec in ("none", *CODECS)), PartLayout(format="webdataset")]  # type: ignore[arg-type]
NAMES = [f"{layout.format}-{layout.used_codec}" for layout in LAYOUTS]

READ_ZARR = """
import sys, hashlib, warnings
sys.modules["bytropix"] = None
import zarr
group = zarr.open_group(sys.argv[1], mode="r")
for name in ("bytes", "doc_ends", "doc_meta", "entropy", "starts"):
    print(name, hashlib.sha256(group[name][:].tobytes()).hexdigest())
"""
READ_TAR = """
import sys, json
sys.modules["bytropix"] = None
import webdataset
for sample in webdataset.WebDataset(sys.argv[1], shardshuffle=False):
    row = {"key": sample["__key__"], "bytes": sample["bytes"].hex(), "entropy": sample["entropy"].hex()}
    print(json.dumps(row | {"starts": sample["starts"].hex(), "json": json.loads(sample["json"])}))
"""


@pytest.fixture(scope="module")
def arrays() -> PartArrays:
    """Return a part with documents of one byte, of several samples, and of a sample's exact length."""
    generator = np.random.default_rng(0)
    text = generator.integers(97, 110, ENDS[-1]).astype(np.uint8)
    starts = generator.random(ENDS[-1]) < 0.2
    begins = [0, *ENDS[:-1]]
    lines = [
        doc_meta_line(source="corpus/ä.tar", record=f'a "piece": [{number}].txt', offset=begin, of=number * 7)
        for number, begin in enumerate(begins)
    ]
    return PartArrays(text, text % 90, starts, np.array(ENDS), b"".join(lines))


def same(one: PartArrays, two: PartArrays) -> bool:
    """Return whether two parts hold the same."""
    columns = ("text", "entropy", "starts", "doc_ends")
    return one.doc_meta == two.doc_meta and all(np.array_equal(getattr(one, c), getattr(two, c)) for c in columns)


def written(place: str | Path, arrays: PartArrays, layout: PartLayout) -> Part:
    """Write a part and open it."""
    storage = open_storage(place)
    name = layout.part_name(3)
    record = write_part(storage, "train", name, arrays, layout=layout, spans=(), patch_lengths=(0, 1))
    return open_part(open_storage(place), record)


@pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
@pytest.mark.parametrize("where", ["folder", "memory"])
def test_arrays_come_back(tmp_path: Path, arrays: PartArrays, layout: PartLayout, where: str) -> None:
    """What was written is read, from a disk and from under a URL, whole and in stretches."""
    part = written(tmp_path if where == "folder" else f"memory://{uuid.uuid4().hex}/s.bx", arrays, layout)
    generator = np.random.default_rng(1)

    assert same(arrays, part.arrays())
    for start, stop in np.sort(generator.integers(0, ENDS[-1], (20, 2))).tolist():
        np.testing.assert_array_equal(arrays.text[start:stop], part.read("bytes", start, stop))
    bits = np.packbits(arrays.starts, bitorder="little")
    for start, stop in np.sort(generator.integers(0, len(bits), (20, 2))).tolist():
        np.testing.assert_array_equal(bits[start:stop], part.read("starts", start, stop))


@pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
def test_same_arrays_are_the_same_files(tmp_path: Path, arrays: PartArrays, layout: PartLayout) -> None:
    """Files do not depend on the time or the place."""
    one, two = (written(tmp_path / name, arrays, layout).record for name in "ab")

    assert one == two
    assert sum(file.size for file in one.files) < 2.2 * ENDS[-1]


@pytest.mark.parametrize("layout", LAYOUTS[:-1], ids=NAMES[:-1])
def test_plain_zarr_reads_a_part(tmp_path: Path, arrays: PartArrays, layout: PartLayout) -> None:
    """A process that cannot import bytropix reads every array with zarr alone."""
    part = written(tmp_path, arrays, layout)
    done = subprocess.run(
        [sys.executable, "-c", READ_ZARR, part.url], capture_output=True, text=True, check=True, env=_plain()
    )
    digest = part.record.files[0].hash_of
    wanted = {
        "bytes": arrays.text.tobytes(),
        "entropy": arrays.entropy.tobytes(),
        "starts": np.packbits(arrays.starts, bitorder="little").tobytes(),
        "doc_ends": arrays.doc_ends.astype("<i8").tobytes(),
        "doc_meta": arrays.doc_meta,
    }

    assert dict(line.split() for line in done.stdout.splitlines()) == {n: digest(data) for n, data in wanted.items()}


def test_plain_webdataset_reads_a_part(tmp_path: Path, arrays: PartArrays) -> None:
    """A process that cannot import bytropix reads every sample with webdataset alone; pieces make up the document."""
    part = written(tmp_path, arrays, PartLayout(format="webdataset"))
    done = subprocess.run(
        [sys.executable, "-c", READ_TAR, f"file:{part.url}"], capture_output=True, text=True, check=True, env=_plain()
    )
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    lines = [json.loads(line) for line in arrays.doc_meta.splitlines()]
    text = b"".join(bytes.fromhex(sample["bytes"]) for sample in samples)
    starts = [np.frombuffer(bytes.fromhex(sample["starts"]), np.uint8) for sample in samples]
    counts = [len(sample["bytes"]) // 2 for sample in samples]
    flags = [np.unpackbits(bits, bitorder="little")[:n] for bits, n in zip(starts, counts, strict=True)]

    assert text == arrays.text.tobytes()
    assert b"".join(bytes.fromhex(sample["entropy"]) for sample in samples) == arrays.entropy.tobytes()
    np.testing.assert_array_equal(np.concatenate(flags).astype(bool), arrays.starts)
    assert [_without_piece(sample["json"]) for sample in samples if sample["json"].get("piece", [0])[0] == 0] == lines
    assert max(counts) == SAMPLE_BYTES
    assert len({sample["key"] for sample in samples}) == len(samples) == 8


def _without_piece(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "piece"}


def _plain() -> dict[str, str]:
    """Return an environment in which nothing of the checkout is found."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "ignore"}


def test_tar_is_a_tar(tmp_path: Path, arrays: PartArrays) -> None:
    """The standard library agrees with every header: regular files, no time, no owner, mode 644, in order."""
    part = written(tmp_path, arrays, PartLayout(format="webdataset"))
    with tarfile.open(part.url) as tar:
        members = tar.getmembers()

    assert {(m.type, m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (tarfile.REGTYPE, 0, 0, 0, "", "", 0o644)
    }
    assert [member.name for member in members[:4]] == [
        f"00003-00000000.{suffix}" for suffix in ("bytes", "entropy", "starts", "json")
    ]
    assert Path(part.url).stat().st_size % tarfile.RECORDSIZE == 0


def test_streams_are_the_same_from_every_format(shared_store: Path, tmp_path: Path) -> None:
    """Blocks of a tar are those of a Zarr part, so that streams cannot tell."""
    part = Store.open(shared_store).parts("train")[0]
    tar = written(tmp_path, part.arrays(), PartLayout(format="webdataset"))
    for name, size in (("bytes", part.n_bytes), ("starts", (part.n_bytes + 7) // 8)):
        for index in range(-(-size // part.block_bytes(name))):
            np.testing.assert_array_equal(part.block(name, index), tar.block(name, index))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"format": "webdataset", "codec": "zstd"}, "tars are not compressed"),
        ({"format": "tar"}, "zarr, webdataset"),
        ({"codec": "gzip"}, "zstd, lz4, blosc-zstd, none"),
        ({"codec": "none", "codec_level": 3}, "none has no level"),
        *(
            ({"codec": codec, "codec_level": level}, f"of {codec} must lie in")
            for codec, level in product(CODECS, (-99, 1001))
        ),
    ],
)
def test_layouts_that_cannot_be(flags: dict[str, Any], said: str) -> None:
    """Each is refused with what there is."""
    with pytest.raises(ConfigError, match=said):
        PartLayout(**flags)
