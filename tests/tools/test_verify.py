"""`bytropix verify` finds every planted fault and names its place; a store that is whole has none."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from bytropix.datasets.store import FileRecord, PartArrays, PartRecord, Store, open_storage, publish
from bytropix.datasets.store.manifest import quarantine_name
from bytropix.datasets.store.schema import Manifest
from bytropix.errors import StoreError
from bytropix.jobs.cli import main
from bytropix.pipelines.runner import local_runner
from bytropix.pipelines.tools.verify import Verified, verify
from tests.tools.conftest import forge


def checked(place: Path | str, **options: Any) -> Verified:
    """Check a store in this process."""
    with local_runner(1) as runner:
        return verify(str(place), runner, **options)


def test_a_whole_store_has_no_fault(store: Path) -> None:
    """In every layout each file but the manifest is hashed, and no rule is broken."""
    found = checked(store)

    assert (found.faults, found.warnings) == ((), ())
    sizes = {path: path.stat().st_size for path in store.rglob("*") if path.is_file()}
    assert found.n_bytes == sum(sizes.values()) - sizes[store / "manifest.json"]


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def test_a_flipped_bit_is_named_with_its_block(store: Path) -> None:
    """One bit anywhere in any file: exactly that file is named, with a block that begins at or before the bit."""
    files = [path for path in sorted(store.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    named, wrong = 0, []
    for path in files:
        whole = path.read_bytes()
        for place in {0, len(whole) // 2, len(whole) - 1} if whole else ():
            flip(path, place)
            faults = checked(store, hashes_only=True).faults
            path.write_bytes(whole)
            name = path.relative_to(store).as_posix()
            part = name.split("/")[1:3] if name.startswith("parts/") else []
            good = len(faults) == 1 and faults[0].file == name and faults[0].part.startswith("/".join(part[:1]))
            good &= faults[0].offset is None or 0 <= faults[0].offset <= place
            named += good and faults[0].offset is not None
            if not good:
                wrong.append((name, place, faults))

    assert wrong == []
    assert named > len(files)


def test_the_block_is_the_right_one(stores: dict[str, Path], layout: str, tmp_path: Path) -> None:
    """A bit in the last third of the text's file is in a block that begins past the first third."""
    store = Path(shutil.copytree(stores[layout], tmp_path / "s.bx"))
    name = "parts/train/00000.tar" if layout == "tar" else "parts/train/00000.zarr/bytes/c/0"
    size = (store / name).stat().st_size
    flip(store / name, size - size // 4)
    (fault,) = checked(store).faults

    assert fault.file == name
    assert fault.part == f"train/00000.{'tar' if layout == 'tar' else 'zarr'}"
    assert size // 3 < (fault.offset or 0) <= size - size // 4


def test_missing_cut_and_swapped_files_are_named(store: Path) -> None:
    """Each file that is gone or shorter is named with what is wrong; of two that changed places, both."""
    files = [path for path in sorted(store.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    for path in files:
        name, whole = path.relative_to(store).as_posix(), path.read_bytes()
        path.unlink()
        assert [(fault.file, fault.fault) for fault in checked(store, hashes_only=True).faults] == [(name, "missing")]
        path.write_bytes(whole[:-1])
        (fault,) = checked(store, hashes_only=True).faults
        assert (fault.file, fault.fault) == (name, f"{len(whole) - 1} bytes instead of {len(whole)}")
        path.write_bytes(whole)
    one, other = [path for path in files if "train" in path.parts and path.name in ("0", "00000.tar", "00001.tar")][:2]
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)

    assert {fault.file for fault in checked(store).faults} == {
        path.relative_to(store).as_posix() for path in (one, other)
    }


def _other_starts(arrays: PartArrays) -> PartArrays:
    starts = arrays.starts.copy()
    starts[1000] = not starts[1000]
    return replace(arrays, starts=starts)


def _other_entropy(arrays: PartArrays) -> PartArrays:
    entropy = arrays.entropy.copy()
    entropy[2000] ^= 1
    return replace(arrays, entropy=entropy)


def _no_first_start(arrays: PartArrays) -> PartArrays:
    starts = arrays.starts.copy()
    starts[arrays.doc_ends[0]] = False
    return replace(arrays, starts=starts)


def _other_text(arrays: PartArrays) -> PartArrays:
    """Change each document, so that about a tenth of them would have gone to val."""
    text = arrays.text.copy()
    text[arrays.doc_ends - 1] ^= 1
    return replace(arrays, text=text)


def _ends(change: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[[PartArrays], PartArrays]:
    def changed(arrays: PartArrays) -> PartArrays:
        ends = arrays.doc_ends.copy()
        change(ends)
        return replace(arrays, doc_ends=ends)

    return changed


def _lines(change: Callable[[list[bytes]], Any]) -> Callable[[PartArrays], PartArrays]:
    def changed(arrays: PartArrays) -> PartArrays:
        lines = arrays.doc_meta.splitlines(keepends=True)
        change(lines)
        return replace(arrays, doc_meta=b"".join(lines))

    return changed


@pytest.mark.parametrize(
    ("arrays", "said", "offset"),
    [
        (_other_starts, "starts is not what the store's table gives", 1000),
        (_other_entropy, "entropy is not what the store's table gives", 2000),
        (_no_first_start, "starts is not what the store's table gives", ...),
        (_other_text, "belongs to the other split by its hash", ...),
        (_ends(lambda ends: ends.__setitem__(0, ends[1])), "doc_ends do not ascend to", None),
        (_ends(lambda ends: ends.__setitem__(-1, ends[-1] - 1)), "doc_ends do not ascend to", None),
        (_lines(lambda lines: lines.__setitem__(3, b"{\n")), "row 3 of doc_meta is not of corpus/a.txt", None),
        (_lines(lambda lines: lines.__setitem__(3, b"[]\n")), "row 3 of doc_meta is not of corpus/a.txt", None),
        (_lines(lambda lines: lines.__setitem__(0, lines[0].replace(b"a.txt", b"b.txt"))), "row 0 of doc_meta", None),
        (_lines(lambda lines: lines.pop()), "rows of doc_meta for", None),
    ],
)
def test_content_that_breaks_a_rule(
    stores: dict[str, Path], tmp_path: Path, arrays: Callable[[PartArrays], PartArrays], said: str, offset: Any
) -> None:
    """Files whose hashes are those of the manifest but whose content is not as it must be; --hashes leaves it out."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    forge(store, arrays=arrays)
    faults = checked(store).faults

    assert checked(store, hashes_only=True).faults == ()
    assert said in faults[0].fault
    assert (faults[0].part, faults[0].file) == ("train/00000.zarr", "")
    assert offset is ... or faults[0].offset == offset


def _span(**changes: int) -> Callable[[PartRecord], PartRecord]:
    def changed(record: PartRecord) -> PartRecord:
        first, *others = record.spans
        values = {name: getattr(first, name) + more for name, more in changes.items()}
        return replace(record, spans=(replace(first, **values), *others))

    return changed


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (_span(patches=1), "patches from corpus/a.txt instead of"),
        (_span(at_cap=1), "at_cap from corpus/a.txt instead of"),
        (_span(single=-1), "single from corpus/a.txt instead of"),
        (_span(n_bytes=1), "do not add up to its bytes"),
        (_span(documents=1), "of which its spans count"),
        (lambda record: replace(record, patch_lengths=(*record.patch_lengths, 1)), "patch_lengths are not those"),
        (lambda record: replace(record, pieces=1), "0 pieces of longer documents instead of 1"),
        (lambda record: replace(record, documents=record.documents + 1), "doc_ends"),
        (lambda record: replace(record, name="9.zarr"), "missing"),
        (
            lambda record: replace(record, spans=(replace(record.spans[0], source="x"), *record.spans[1:])),
            "holds documents of x, which is no source",
        ),
    ],
)
def test_counts_that_do_not_add_up(
    stores: dict[str, Path], tmp_path: Path, record: Callable[[PartRecord], PartRecord], said: str
) -> None:
    """Numbers of a part's record are counted again."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    forge(store, record=record)

    assert any(said in fault.fault for fault in checked(store).faults)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda manifest: replace(manifest, documents_in=(manifest.documents_in or 0) + 1), "documents came in"),
        (lambda manifest: replace(manifest, dropped={"duplicate": 1}), "documents came in"),
        (
            lambda manifest: replace(manifest, documents_in=None, quarantined=0),
            "1 rows of quarantine.jsonl instead of 0",
        ),
        (lambda manifest: replace(manifest, parts=(*manifest.parts, manifest.parts[0])), "a part is named twice"),
    ],
)
def test_sums_of_the_manifest(
    stores: dict[str, Path], tmp_path: Path, change: Callable[[Manifest], Manifest], said: str
) -> None:
    """Documents in are those stored, dropped and quarantined, and the list has a row for each that was refused."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    forge(store, manifest=change)

    assert any(said in fault.fault and not fault.file for fault in checked(store).faults)


def test_a_damaged_manifest_is_named(stores: dict[str, Path], tmp_path: Path) -> None:
    """It is a fault like another, and an older version that is kept can still be checked."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    second_version(store)
    assert checked(store).faults == ()
    flip(store / "manifest.json", 2000)
    (fault,) = checked(store).faults

    assert fault.file == "manifest.json"
    assert "damaged" in fault.fault
    assert checked(store, version=1).faults == ()
    assert [manifest.version for manifest in checked(store).manifests] == [1]


def second_version(place: Path) -> None:
    """Publish a version that has a list of its own, so that the older one keeps the first."""
    store, storage = Store.open(place), open_storage(place)
    data = b'{"bytes_read": 0, "path": "x", "reason": "empty"}\n'
    storage.write(quarantine_name(2), data)
    record = FileRecord(path=quarantine_name(2), size=len(data), sha256=FileRecord.hash_of(data))
    publish(storage, replace(store.manifest, version=2, quarantine=record), replaces=store.fingerprint)


def test_older_versions_are_checked_too(stores: dict[str, Path], tmp_path: Path) -> None:
    """A file that only an older version needs is as good as any; --version checks one version alone."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    second_version(store)
    flip(store / "quarantine.jsonl", 3)

    assert [fault.file for fault in checked(store).faults] == ["quarantine.jsonl"]
    assert [fault.file for fault in checked(store, version=1).faults] == ["quarantine.jsonl"]
    assert checked(store, version=2).faults == ()
    with pytest.raises(StoreError, match="there is no version 3"):
        checked(store, version=3)


def test_a_file_that_no_version_names_is_a_warning(stores: dict[str, Path], tmp_path: Path) -> None:
    """It harms nothing, so the store is whole."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    (store / "parts" / "train" / "left").touch()
    found = checked(store)

    assert found.faults == ()
    assert found.warnings == ("parts/train/left: no version names it; a job that ended early left it",)


def test_a_store_under_a_url(stores: dict[str, Path], layout: str) -> None:
    """An object store is checked in the same way, and each object is fetched once."""
    memory = fsspec.filesystem("memory")
    memory.put(str(stores[layout]), f"/verify/{layout}.bx", recursive=True)
    place = f"memory://verify/{layout}.bx"
    assert checked(place).faults == ()
    name = next(path for path in memory.find(f"/verify/{layout}.bx") if path.endswith(("bytes/c/0", "00000.tar")))
    memory.pipe(name, memory.cat(name)[:-5])
    (fault,) = checked(place).faults

    assert name.endswith(fault.file)
    assert "bytes instead of" in fault.fault


def test_any_number_of_workers_finds_the_same(stores: dict[str, Path], tmp_path: Path) -> None:
    """The report does not depend on who did the work."""
    store = Path(shutil.copytree(stores["zstd"], tmp_path / "s.bx"))
    for part in ("train/00000", "val/00000"):
        flip(store / "parts" / f"{part}.zarr" / "entropy" / "c" / "0", 100)
    with local_runner(2) as runner:
        found = verify(str(store), runner)

    assert found.faults == checked(store).faults
    assert len(found.faults) == 2


def test_command_ends_with_0_1_or_2(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0: whole; 1: damaged, with all that is damaged in the first line; 2: there is no store."""
    assert main(["verify", str(store), "--workers", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{store}: whole\n")
    harmed = [path for path in sorted(store.rglob("*")) if path.is_file() and path.name != "manifest.json"][:2]
    for path in harmed:
        path.write_bytes(b"")
    assert main(["verify", str(store), "--workers", "1", "--hashes"]) == 1
    first = capsys.readouterr().out.splitlines()[0]
    names = [path.relative_to(store).as_posix() for path in harmed]
    assert first == f"{store}: damaged: {', '.join(names)}"
    assert main(["verify", str(store), "--workers", "1", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in report["faults"]] == names
    assert set(report["faults"][0]) == {"part", "file", "offset", "fault"}
    assert main(["verify", str(store / "gone")]) == 2
