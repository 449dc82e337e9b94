"""Tars, WebDataset tars and zip archives."""

import gzip
import io
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from bytropix.pipelines.sources import ReadOptions, SourceFault
from bytropix.pipelines.sources.records import BLOCK_BYTES

Read = Callable[..., Any]
TEXTS = {"b.txt": b"bee", "deep/a.txt": b"a" * 3000, "deep/": b"", "\u2603.bin": bytes(range(256)) * 4}
LONG = "d/" * 120 + "long.txt"


def tar_with(*members: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """Return a tar of members without data, or of name and data."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            data = b""
            if isinstance(member, tuple):
                name, data = member
                member = tarfile.TarInfo(name)
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def entry(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    """Return a member of a kind that has no data."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("seekable", [True, False])
def test_tar(form: int, seekable: bool, read: Read) -> None:
    """Files are records in their order, with their place; folders are nothing; long and foreign names are whole."""
    long = "d/" * 60 + "long.txt" if form == tarfile.USTAR_FORMAT else LONG
    large = random.Random(2).randbytes(BLOCK_BYTES + 5)
    data = tar_with(entry("deep", tarfile.DIRTYPE), ("deep/a.txt", b"a"), (long, b"long"), ("l", large), form=form)

    found = read(data, "a.tar", seekable=seekable)

    assert found.records == [("deep/a.txt", b"a"), (long, b"long"), ("l", large)]
    assert found.bad == []
    assert [data[place : place + 2] for place in found.places] == [b"a\0", b"lo", large[:2]]


def test_names_that_are_not_utf8(read: Read) -> None:
    """A name in another encoding keeps its bytes, as names of files do."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(member := tarfile.TarInfo("caf\xe9.txt"), io.BytesIO(b""))
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))

    found = read(data.getvalue(), "a.tar")

    assert found.records == [("caf\udce9.txt", b"x")]
    assert found.bad == [("caf\udce9.txt", "empty")]


def test_tar_with_what_is_no_file(read: Read) -> None:
    """Links, devices, pipes and paths that climb out are refused one by one; the files among them are read."""
    data = tar_with(
        entry("hard", tarfile.LNKTYPE, "a"),
        entry("soft", tarfile.SYMTYPE, "/etc/passwd"),
        ("a", b"one"),
        entry("tty", tarfile.CHRTYPE),
        entry("disk", tarfile.BLKTYPE),
        entry("pipe", tarfile.FIFOTYPE),
        ("../../out.txt", b"out"),
        ("/abs.txt", b"abs"),
        ("x\\..\\..\\w.txt", b"win"),
        entry("odd", b"Z"),
        ("b", b"two"),
    )

    found = read(data, "a.tar")

    assert found.records == [("a", b"one"), ("b", b"two")]
    assert dict(found.bad) == {
        "hard": "a hard link",
        "soft": "a symbolic link",
        "tty": "a device",
        "disk": "a device",
        "pipe": "a pipe",
        "../../out.txt": "its path leaves the archive",
        "/abs.txt": "its path leaves the archive",
        "x\\..\\..\\w.txt": "its path leaves the archive",
        "odd": "of unknown type b'Z'",
    }


def test_tar_that_is_cut(read: Read) -> None:
    """A tar that ends early is refused even where it ends between two members, which tarfile takes for the end."""
    data = tar_with(("a", b"a" * 600), ("b", b"b"))
    cuts = {
        100: "not a tar",
        512: "inside a member",
        700: "inside a member",
        512 * 3: "without the zeros",
        512 * 5: "zeros",
    }

    for cut, said in cuts.items():
        with pytest.raises(SourceFault, match=said):
            read(data[:cut], "a.tar")
    assert len(read(data[: 512 * 6], "a.tar").records) == 2


def test_tar_with_a_broken_header(read: Read) -> None:
    """A flipped bit in any header refuses the file; a reader that stops there would lose the members behind it."""
    data = tar_with(*((f"{i}", b"text") for i in range(5)))

    for place in (0, 1024, 4 * 1024):
        damaged = bytearray(data)
        damaged[place + 100] ^= 1
        with pytest.raises(SourceFault, match="bad checksum"):
            read(bytes(damaged), "a.tar")


def test_tars_end_to_end(read: Read) -> None:
    """Concatenated tars are one; bytes after the end that are no tar are not passed over."""
    one, two = tar_with(("a", b"1")), tar_with(("b", b"2"))

    assert read(one + two, "a.tar").records == [("a", b"1"), ("b", b"2")]
    with pytest.raises(SourceFault, match="or bytes after the end"):
        read(one + b"junk" * 200, "a.tar")


def test_sparse_members(read: Read) -> None:
    """A sparse member, old style or pax, is refused, and what follows it is read."""
    old = bytearray(tar_with(entry("old", tarfile.GNUTYPE_SPARSE)))
    old[482] = 1  # one more block of the map follows
    header = (
        tarfile.TarInfo.frombuf(bytes(old[:148]) + b" " * 8 + bytes(old[156:512]), "utf-8", "strict") if 0 else None
    )
    assert header is None
    checksum = sum(old[:148]) + 8 * 32 + sum(old[156:512])
    old[148:156] = b"%06o\0 " % checksum
    pax = tarfile.TarInfo("pax")
    pax.pax_headers = {"GNU.sparse.major": "1"}

    found = read(bytes(old[:512]) + bytes(512) + tar_with(("a", b"1")), "a.tar")
    assert (found.records, found.bad) == ([("a", b"1")], [("old", "a sparse file")])
    found = read(tar_with(pax, ("a", b"1"), form=tarfile.PAX_FORMAT), "a.tar")
    assert (found.records, found.bad) == ([("a", b"1")], [("pax", "a sparse file")])


def test_huge_names_are_not_held(read: Read) -> None:
    """A header that says its name has a gigabyte is refused before a byte of it is read."""
    data = tar_with(entry("././@LongLink", tarfile.REGTYPE))
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 30

    with pytest.raises(SourceFault, match="1,073,741,824 bytes of name"):
        read(member.tobuf(tarfile.GNU_FORMAT) + data, "a.tar")


def test_webdataset(read: Read) -> None:
    """With a sample field, only members of that field are documents: the part after the first dot of the last step."""
    data = tar_with(
        ("s/1.txt", b"one"), ("s/1.json", b"{}"), ("s/2.TXT", b"two"), ("s/2.en.txt", b"no"), ("s.x/3.cls", b"3")
    )

    found = read(data, "a.tar", ReadOptions(sample_field="txt"))

    assert found.records == [("s/1.txt", b"one"), ("s/2.TXT", b"two")]
    assert found.bad == []
    with pytest.raises(SourceFault, match=r"no member KEY\.html; fields there are: cls, en\.txt, json, txt"):
        read(data, "a.tar", ReadOptions(sample_field="html"))


def zip_with(method: int = zipfile.ZIP_DEFLATED, texts: dict[str, bytes] = TEXTS) -> bytes:
    """Return a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, text in texts.items():
            archive.writestr(name, text)
    return out.getvalue()


@pytest.mark.parametrize("seekable", [True, False])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_zip(method: int, seekable: bool, read: Read) -> None:
    """Files are records, folders are nothing, and what is stored has its place, with names of any script."""
    data = zip_with(method)

    found = read(data, "a.zip", seekable=seekable)

    assert found.records == [(name, text) for name, text in TEXTS.items() if text]
    assert found.bad == []
    places = [data.index(text) for text in TEXTS.values() if text] if method == zipfile.ZIP_STORED else [-1] * 3
    assert found.places == places


def test_large_member(read: Read) -> None:
    """A member of several blocks is whole, and its CRC is that of all of them."""
    large = random.Random(3).randbytes(BLOCK_BYTES + 1)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert read(zip_with(method, {"l": large}), "a.zip").records == [("l", large)]


def test_zip_with_what_is_refused(read: Read) -> None:
    """Paths that climb out, encryption, links, odd methods and empty files are refused one by one."""
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../out.txt", b"out")
        archive.writestr("/abs.txt", b"abs")
        archive.writestr("C:/win.txt", b"win")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("none", b"")
        archive.writestr("secret", b"secret")
        archive.writestr("lzma", b"lzma" * 9, zipfile.ZIP_LZMA)
        archive.writestr("good", b"good")
    data = bytearray(out.getvalue())
    data[data.rindex(b"PK\1\2", 0, data.rindex(b"secret")) + 8] |= 1

    found = read(bytes(data), "a.zip")

    assert found.records == [("good", b"good")]
    assert dict(found.bad) == {
        "../../out.txt": "its path leaves the archive",
        "/abs.txt": "its path leaves the archive",
        "C:/win.txt": "its path leaves the archive",
        "link": "a symbolic link",
        "none": "empty",
        "secret": "encrypted",
        "lzma": "compression method 14 is not supported; pack it again with deflate",
    }


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_member(method: int, read: Read) -> None:
    """A flipped bit costs the member it is in, and no other; blocks given before it was noticed are void."""
    large = random.Random(4).randbytes(2 * BLOCK_BYTES)
    data = bytearray(zip_with(method, {"a": b"one" * 50, "l": large, "b": b"two" * 50}))
    data[len(data) // 2] ^= 1

    found = read(bytes(data), "a.zip")

    assert found.records == [("a", b"one" * 50), ("b", b"two" * 50)]
    ((name, reason),) = found.bad
    assert name == "l"
    assert "CRC" in reason or "broken deflate stream" in reason


def test_zip_that_lies_about_lengths(read: Read) -> None:
    """A directory that says fewer or more bytes than there are costs the member."""
    data = zip_with(zipfile.ZIP_DEFLATED, {"a": b"one" * 50})
    place = data.rindex(b"PK\1\2") + 24
    for size, said in ((149, "more bytes than the 149"), (151, "fewer bytes than the 151")):
        lie = data[:place] + struct.pack("<I", size) + data[place + 4 :]

        assert read(lie, "a.zip").records == []
        assert said in read(lie, "a.zip").bad[0][1]


def test_zip_that_is_none_or_cut(read: Read) -> None:
    """Without its directory, which lies at the end, a zip archive is refused."""
    for data in (zip_with()[:-30], b"no zip" * 20, gzip.compress(b"x")):
        with pytest.raises(SourceFault, match="not a zip archive, or one cut short"):
            read(data, "a.zip")


def test_zip_bombs(read: Read) -> None:
    """A member that expands too much refuses the archive, and so do many members that share the same bytes."""
    with pytest.raises(SourceFault, match="--max-expansion"):
        read(zip_with(texts={"bomb": bytes(10_000_000)}), "a.zip")

    # Every entry of the directory points at one member of 60 kB, whose expansion alone is allowed.
    text = bytes(random.Random(5).choices(range(2), k=600_000))
    one = zip_with(texts={"a": text})
    begin, end = one.rindex(b"PK\1\2"), one.rindex(b"PK\5\6")
    many = 400
    directory = one[begin:end] * many
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, many, many, len(directory), begin, 0)
    with pytest.raises(SourceFault, match="--max-expansion 200"):
        read(one[:begin] + directory + tail, "a.zip")
