"""Stores of so many parts that these lie in lists: the same rows and bytes, and nothing read before it is asked for."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.config import to_plain
from bytropix.datasets import blocks
from bytropix.datasets.store import (
    LISTED_VERSION,
    FileRecord,
    Listing,
    PartLayout,
    PartRecord,
    Store,
    open_storage,
    part_bytes,
    publish,
)
from bytropix.datasets.store.manifest import list_files, manifest_text, names_of
from bytropix.datasets.store.parts import OPEN_PARTS
from bytropix.datasets.store.rows import ListHead, RowList, Rows
from bytropix.datasets.store.schema import plain_row
from bytropix.datasets.store.trust import check_part
from bytropix.datasets.stream import ByteStream
from bytropix.errors import StoreError
from bytropix.jobs.bench.forge import signed
from bytropix.pipelines.append import append_bytes
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes
from bytropix.pipelines.runner import local_runner
from bytropix.pipelines.tools.convert import convert
from bytropix.pipelines.tools.repair import repair
from bytropix.pipelines.tools.repatch import repatch
from bytropix.pipelines.tools.verify import verify

SOME = Listing(inline=1, list_bytes=2_500)  # lists of two parts or more
CONFIG = IngestConfig(part_bytes=1 << 13, document_bytes=1 << 10, val_fraction=0.3)
LAYOUTS = [PartLayout(), PartLayout(codec="none"), PartLayout(format="webdataset")]
CONTEXT, BATCH = 511, 16


def in_lists(place: Path, listing: Listing = SOME) -> Store:
    """Publish a store anew with its parts and sources in lists."""
    store = Store.open(place)
    publish(store.storage, store.manifest, replaces=store.fingerprint, forget=True, listing=listing)
    return Store.open(place)


def tree(place: Path) -> dict[str, bytes]:
    """Return every file of a store."""
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def everything(store: Store) -> list[tuple[str, str, bytes, bytes]]:
    """Return what the parts of a store hold."""
    return [
        (split, part.name, part.arrays().text.tobytes(), part.arrays().starts.tobytes())
        for split in store.splits
        for part in store.parts(split)
    ]


def an_epoch(store: Store) -> list[tuple[bytes, bytes]]:
    """Return the batches of an epoch."""
    stream = ByteStream(store, context=CONTEXT, batch=BATCH, epochs=1)
    return [(batch.bytes.numpy().tobytes(), batch.bits.numpy().tobytes()) for batch in stream]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three texts."""
    folder = tmp_path_factory.mktemp("texts")
    generator = np.random.default_rng(0)
    words = np.array(["whale ", "sea ", "of ", "harpoon ", "and ", "a ", "ship\n"])
    for number in range(3):
        (folder / f"{number}.txt").write_text("".join(words[generator.integers(0, 7, 5_000)]))
    return folder


@pytest.fixture(scope="module")
def made(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of several parts in each split that names them in its manifest; not to be changed."""
    return ingest_bytes([sources], tmp_path_factory.mktemp("made") / "s.bx", CONFIG).store.path


@pytest.fixture
def inline(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the store."""
    return Path(shutil.copytree(made, tmp_path / "inline.bx"))


@pytest.fixture
def listed(made: Path, tmp_path: Path) -> Path:
    """Return the same store with lists."""
    return in_lists(Path(shutil.copytree(made, tmp_path / "listed.bx"))).path


def test_lists_hold_the_same_rows(inline: Path, listed: Path) -> None:
    """Parts and sources are those of the manifest they come from, however they are asked for."""
    few, many = Store.open(inline), Store.open(listed)
    assert isinstance(many.manifest.parts, Rows)
    assert isinstance(many.manifest.sources, Rows)
    assert len(many.manifest.parts.lists) > 3
    assert {one.head.split for one in many.manifest.parts.lists} == {"train", "val"}
    assert (few.manifest.format_version, many.manifest.format_version) == (2, LISTED_VERSION)

    assert many.manifest.parts == few.manifest.parts
    assert many.manifest.sources == few.manifest.sources
    assert [many.manifest.parts[-1], *many.manifest.parts[2:9:3]] == [
        few.manifest.parts[-1],
        *few.manifest.parts[2:9:3],
    ]
    assert part_bytes(many.manifest.parts).tolist() == [part.n_bytes for part in few.manifest.parts]
    with pytest.raises(IndexError):
        many.manifest.parts[len(few.manifest.parts)]
    assert names_of(many.manifest) == names_of(few.manifest) | {f"lists/{p.name}" for p in (listed / "lists").iterdir()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lists_hold_the_same_bytes(sources: Path, tmp_path: Path, layout: PartLayout) -> None:
    """What is read, and every batch of an epoch, does not depend on where the records of parts lie."""
    few = ingest_bytes([sources], tmp_path / "inline.bx", replace(CONFIG, layout=layout)).store
    many = in_lists(Path(shutil.copytree(few.path, tmp_path / "listed.bx")))

    assert everything(many) == everything(few)
    assert an_epoch(many) == an_epoch(few)
    assert many.parts("train").sizes.tolist() == [part.n_bytes for part in few.parts("train")]


def test_lists_are_the_same_for_everyone(made: Path, tmp_path: Path) -> None:
    """The same rows give the same lists, and a manifest covers them: another list is another fingerprint."""
    stores = [in_lists(Path(shutil.copytree(made, tmp_path / name))) for name in ("a.bx", "b.bx")]
    other = in_lists(Path(shutil.copytree(made, tmp_path / "c.bx")), Listing(inline=1, list_bytes=9_000))

    assert tree(stores[0].path) == tree(stores[1].path)
    assert other.fingerprint != stores[0].fingerprint


def test_a_small_store_is_written_as_ever(inline: Path) -> None:
    """Without lists the manifest is the JSON of its fields, sorted, of format version 2."""
    manifest = Store.open(inline).manifest
    plain = to_plain(manifest) | {"parts": [plain_row(part) for part in manifest.parts]}
    text = json.dumps({"checksum": "", **plain}, indent=1, sort_keys=True) + "\n"
    assert '"frames"' not in text
    digest = hashlib.sha256(text.encode()).hexdigest()

    assert (inline / "manifest.json").read_text() == text.replace('"checksum": ""', f'"checksum": "{digest}"', 1)
    assert manifest.format_version == 2
    assert not (inline / "lists").exists()


def test_a_store_at_the_limit_needs_no_list(inline: Path) -> None:
    """As many rows as are allowed stay in the manifest; with one more the parts go, and the sources stay."""
    parts = len(Store.open(inline).manifest.parts)

    assert not isinstance(in_lists(inline, Listing(inline=parts)).manifest.parts, Rows)
    store = in_lists(inline, Listing(inline=parts - 1))
    assert isinstance(store.manifest.parts, Rows)
    assert not isinstance(store.manifest.sources, Rows)


def test_append_adds_lists_and_leaves_the_old_ones(inline: Path, listed: Path, tmp_path: Path) -> None:
    """Both versions open, the new one with the rows that a small store would have; no list is written anew."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("a later whale\n" * 5_000)
    before = {name: (listed / name).stat().st_mtime_ns for name in tree(listed) if name.startswith("lists/")}
    (listed / "lists" / "left.jsonl").write_text("of a job that died")
    few = append_bytes(inline, [tmp_path / "more"]).store
    many = append_bytes(listed, [tmp_path / "more"]).store
    old = Store.open(listed, version=1)

    assert many.manifest.parts == few.manifest.parts
    assert {source.name: source for source in many.manifest.sources} == {
        source.name: source for source in few.manifest.sources
    }
    assert many.manifest.version == 2
    assert an_epoch(many) == an_epoch(few)
    assert old.manifest.parts == Store.open(inline, version=1).manifest.parts
    after = {name: (listed / name).stat().st_mtime_ns for name in tree(listed) if name.startswith("lists/")}
    assert before.items() < after.items()
    assert set(list_files(old.manifest)) < set(list_files(many.manifest))
    assert "lists/left.jsonl" not in after
    with local_runner(1) as runner:
        assert (verify(str(listed), runner).faults, verify(str(listed), runner).warnings) == ((), ())


def test_an_ingestion_that_died_with_lists_goes_on(made: Path, sources: Path, tmp_path: Path) -> None:
    """Lists that no manifest names are no store in the way, and are gone when there is one."""
    out = tmp_path / "s.bx"
    (out / "lists").mkdir(parents=True)
    (out / "lists" / "left.jsonl").write_text("half")
    ingest_bytes([sources], out, CONFIG, resume=True)

    assert not (out / "lists").exists()


def test_tools_work_on_lists(inline: Path, listed: Path, sources: Path, tmp_path: Path) -> None:
    """Verify finds a damaged part, repair mends it, and what convert and repatch make is what a small store gives."""
    victim = next(
        path for path in sorted((listed / "parts/train").rglob("*")) if path.is_file() and path.name != "zarr.json"
    )
    data = victim.read_bytes()
    victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with local_runner(1) as runner:
        found = verify(str(listed), runner)
        assert {fault.file for fault in found.faults} == {victim.relative_to(listed).as_posix()}
        repair(found, runner, sources=[str(sources)])
        assert verify(str(listed), runner).faults == ()
        assert victim.read_bytes() == data
        other = PartLayout(codec="lz4")
        made = [
            convert(str(place), str(tmp_path / f"{place.stem}-lz4"), other, runner).store for place in (inline, listed)
        ]
        again = convert(str(listed), str(tmp_path / "listed-lz4"), other, runner, resume=True)
        assert (made[0].fingerprint, len(made[0].manifest.parts)) == (made[1].fingerprint, again.skipped)
        cut = [repatch(str(place), {"mean_patch": 7.0}, runner) for place in (inline, listed)]
        assert cut[0].manifest.parts == cut[1].manifest.parts
        assert everything(cut[0]) == everything(cut[1])
    assert {path.name for path in (listed / "lists").iterdir()} == {
        Path(file.path).name for file in list_files(cut[1].manifest)
    }


def harms(place: Path) -> list[tuple[str, Callable[[], object]]]:
    """Return what may happen to a list of parts, and does it: bits, ends, absence, another list in its place."""
    names = [one.head.path for one in Store.open(place).manifest.parts.lists]  # type: ignore[attr-defined]
    path, other = place / names[1], place / names[0]
    data = path.read_bytes()

    def flip(at: int) -> Callable[[], object]:
        return lambda: path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    return [
        *((f"bit of byte {at}", flip(at)) for at in (0, len(data) // 2, data.index(b"\n"), len(data) - 1)),
        ("cut", lambda: path.write_bytes(data[:-1])),
        ("empty", lambda: path.write_bytes(b"")),
        ("grown", lambda: path.write_bytes(data + b"\n")),
        ("exchanged", lambda: path.write_bytes(other.read_bytes())),
        ("missing", path.unlink),
    ]


def test_a_damaged_list_is_named_before_any_row(listed: Path) -> None:
    """Every part of the list is refused with its name, every other part is read, and a stream ends with the error."""
    whole = {(split, name): (text, starts) for split, name, text, starts in everything(Store.open(listed))}
    heads = [one.head for one in Store.open(listed).manifest.parts.lists]  # type: ignore[attr-defined]
    data = (listed / heads[1].path).read_bytes()
    touched = range(heads[0].rows, heads[0].rows + heads[1].rows)
    for what, harm in harms(listed):
        harm()
        store = Store.open(listed)
        parts = store.parts(heads[1].split)
        for place in range(len(parts)):
            if place in touched:
                with pytest.raises(StoreError, match=heads[1].path):
                    parts[place]
            else:
                part = parts[place]
                assert part.read("bytes", 0, part.n_bytes).tobytes() == whole[part.split, part.name][0], what
        with pytest.raises(StoreError, match=heads[1].path):
            an_epoch(store)
        with local_runner(1) as runner:
            found = verify(str(listed), runner, hashes_only=True)
        assert {fault.file for fault in found.faults} == {heads[1].path}, what
        (listed / heads[1].path).write_bytes(data)
    with (
        local_runner(1) as runner,
        pytest.raises(StoreError, match=f"{heads[1].path}: damaged, and nothing else tells"),
    ):
        repair(found, runner)


def test_a_missing_file_is_named_when_its_part_is_touched(listed: Path) -> None:
    """Opening does not look; the part that lacks a file, or has a shorter one, says so, and all others are read."""
    record = Store.open(listed).manifest.parts[4]
    path = listed / record.folder / record.files[0].path
    data = path.read_bytes()
    for harm, said in ((path.unlink, "missing"), (lambda: path.write_bytes(data[:-1]), f"instead of {len(data)}")):
        harm()
        parts = Store.open(listed).parts(record.split)
        for place in range(len(parts)):
            if place == 4:
                for _ in range(2):
                    with pytest.raises(StoreError, match=f"{path.name}: .*{said}"):
                        parts[place]
            else:
                parts[place].block("bytes", 0)
        path.write_bytes(data)


def forged(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and sign it anew."""
    plain = json.loads((place / "manifest.json").read_text())
    change(plain)
    (place / "manifest.json").write_bytes(signed(plain))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("path", name) for name in ("../../x", "/etc/passwd", "a//b", "lists/../x", "C:\\x", "")),
        *(
            ("part_bytes", sizes)
            for sizes in ([], [1], "1", None, [True] * 3, [1.5] * 3, [0] * 3, [-1] * 3, [10**30] * 3)
        ),
        ("part_bytes", [2**62] * 3),
        *(("rows", rows) for rows in (0, -1, 400, 10**30, True, "3")),
        *(("split", split) for split in ("", 3, None)),
        ("size", 10**30),
        ("sha256", 7),
        ("more", 1),
    ],
)
def test_nonsense_about_a_list_is_refused(listed: Path, field: str, value: object) -> None:
    """A signed manifest whose entry of a list can be none is not opened; the message is one line and names it."""
    first = Store.open(listed).manifest.parts.lists[0].head.rows  # type: ignore[attr-defined]
    value = value[:1] * first if isinstance(value, list) and len(value) == 3 else value
    forged(listed, lambda plain: plain["part_lists"][0].update({field: value}))
    with pytest.raises(StoreError, match=r"manifest\.json: ") as caught:
        Store.open(listed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lists", [None, 3, {}, [3], [[]], [{}]])
@pytest.mark.parametrize("key", ["part_lists", "source_lists"])
def test_lists_that_are_none_are_refused(listed: Path, key: str, lists: object) -> None:
    """So is a manifest that has something else in their place, or parts beside them."""
    forged(listed, lambda plain: plain.update({key: lists}))
    with pytest.raises(StoreError, match=r"manifest\.json: damaged"):
        Store.open(listed)
    forged(listed, lambda plain: plain.update({key: [], key.replace("_list", ""): []}))
    with pytest.raises(StoreError, match=r"manifest\.json: damaged \(both"):
        Store.open(listed)


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row.update(n_bytes=row["n_bytes"] + 1),
        lambda row: row.update(split="val" if row["split"] == "train" else "train"),
        lambda row: row.update(split="..", name="x"),
        lambda row: row.update(name="../../x"),
        lambda row: row["files"][0].update(path="/etc/passwd"),
        lambda row: row.update(format="parquet"),
        lambda row: row.update(documents=0),
        lambda row: row.pop("files"),
        lambda row: row.update(more=1),
    ],
)
def test_nonsense_in_a_list_is_refused(listed: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """A row under right hashes that is no part, or another than the manifest says, is refused with list and line."""

    def harm(plain: dict[str, Any]) -> None:
        entry = plain["part_lists"][0]
        rows = [json.loads(line) for line in (listed / entry["path"]).read_bytes().splitlines()]
        change(rows[1])
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        (listed / entry["path"]).write_bytes(data)
        entry |= {"size": len(data), "sha256": FileRecord.hash_of(data)}

    forged(listed, harm)
    store = Store.open(listed)
    store.manifest.parts[0]
    with pytest.raises(StoreError, match=r"lists/\w+\.jsonl, line 2: "):
        store.parts("train")[1]
    with local_runner(1) as runner:
        assert "line 2" in verify(str(listed), runner).faults[0].fault


@pytest.mark.parametrize("form", ["zarr", "webdataset"])
def test_a_part_lies_in_the_store_whatever_its_form(made: Path, form: str) -> None:
    """The name of a part leads nowhere else, be it that of a folder or of a file."""
    record = replace(Store.open(made).manifest.parts[0], format=form)
    check_part("here", record)
    with pytest.raises(StoreError, match="no path inside the store"):
        check_part("here", replace(record, name="../../x"))


def test_a_store_of_a_hundred_thousand_parts_opens_by_its_manifest(made: Path, tmp_path: Path) -> None:
    """No list is there, and none is missed until a part is touched: sizes, windows and any position come without."""
    place = Path(shutil.copytree(made, tmp_path / "big.bx"))
    manifest = Store.open(place).manifest
    shutil.rmtree(place / "parts")
    sizes = np.random.default_rng(0).integers(1, 1 << 27, (500, 200))
    heads = [
        ListHead(path=f"lists/{i}.jsonl", size=1 << 18, sha256="0" * 64, rows=200, split="train") for i in range(500)
    ]
    lists = [RowList(head, row) for head, row in zip(heads, sizes, strict=True)]
    parts = Rows(open_storage(place), PartRecord, lists)
    (place / "manifest.json").write_bytes(manifest_text(replace(manifest, format_version=3, parts=parts)))
    store = Store.open(place)
    stream = ByteStream(store, context=4095, batch=32)

    assert np.array_equal(store.parts("train").sizes, sizes.ravel())
    assert stream.windows == -(-int(sizes.sum()) // 4096)
    stream.load_state_dict(stream.state_dict() | {"position": 32 * (stream.windows // 64)})
    with pytest.raises(StoreError, match=r"lists/\d+\.jsonl: cannot be read"):
        next(iter(stream))


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files as Linux lists them")
@pytest.mark.parametrize(
    ("listing", "least"), [(Listing(), 0), (SOME, blocks.LEAST_MAPPED)], ids=["inline, mapped", "lists, copied"]
)
def test_few_files_are_open_however_many_parts_were_read(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: Listing, least: int
) -> None:
    """A stream over more mapped parts than a process may have files open keeps some open, and its bytes are right."""
    monkeypatch.setattr(blocks, "LEAST_MAPPED", least)
    place = tmp_path / "many.bx"
    store = ingest_bytes([sources], place, replace(CONFIG, layout=PartLayout(codec="none"))).store
    train = [part for part in store.manifest.parts if part.split == "train"]
    many = tuple(train * (3 * OPEN_PARTS // len(train) + 1))
    text = b"".join(part.read("bytes", 0, part.n_bytes).tobytes() for part in store.parts("train")) * (
        len(many) // len(train)
    )
    publish(store.storage, replace(store.manifest, parts=many), replaces=store.fingerprint, listing=listing)
    stream = ByteStream(Store.open(place), context=4095, batch=1, epochs=1)
    before, most, rows = open_files(), 0, []
    for batch in stream:
        rows += [
            row[:length].numpy().tobytes() for row, length in zip(batch.bytes, batch.lengths.tolist(), strict=True)
        ]
        most = max(most, open_files() - before)

    assert len(many) > 3 * OPEN_PARTS
    assert most < 1000  # of twice as many as there are parts
    assert sorted(text[begin : begin + 4096] for begin in range(0, len(text), 4096)) == sorted(rows)


def open_files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_lists_on_an_object_store(listed: Path) -> None:
    """A remote store with lists is opened without a listing of its parts and gives the same bytes."""
    remote = open_storage(f"memory://scale/{listed.parent.name}/{listed.parent.parent.name}.bx")
    for name, data in tree(listed).items():
        remote.write(name, data)
    store = Store.open(remote.url)

    assert everything(store) == everything(Store.open(listed))
    missing = store.manifest.parts[3]
    remote.remove([f"{missing.folder}/{missing.files[0].path}"])
    with pytest.raises(StoreError, match=missing.files[0].path.split("/")[-1]):
        Store.open(remote.url).parts(missing.split)[3]
