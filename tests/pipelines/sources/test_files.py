"""What is found in files and folders."""

import os
import socket
import sys
from pathlib import Path

import pytest

from bytropix.errors import SourceError
from bytropix.pipelines.sources import find_files, open_source

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="such entries do not exist on Windows")


def names(*sources: str | Path) -> list[tuple[str, str]]:
    """Return name and reason of what is found."""
    return [(file.name, file.refused) for file in find_files(sources)]


def test_names_hold_nothing_of_the_machine(tmp_path: Path) -> None:
    """A file is called by its source's own name and the path below it."""
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.txt").write_text("a")
    (tmp_path / "data" / "b.txt").write_text("b")

    assert names(tmp_path / "data") == [("data/b.txt", ""), ("data/deep/a.txt", "")]
    assert names(tmp_path / "data" / "deep" / "..") == [("data/b.txt", ""), ("data/deep/a.txt", "")]


def test_file_reached_twice_counts_once_whatever_the_order(tmp_path: Path) -> None:
    """A folder and a file of it, or a link to it, give that file once, under one name."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "z.txt").write_text("a")
    folder, file = tmp_path / "data", tmp_path / "data/z.txt"
    one, two = (find_files([str(source) for source in order]) for order in ([folder, file], [file, folder]))

    assert [file.name for file in one] == ["data/z.txt"]
    assert one == two
    assert one == find_files([folder.as_uri(), str(file)])


@POSIX
def test_links_and_special_files(tmp_path: Path) -> None:
    """Links to files are read; loops, broken links and pipes are listed with a reason and never opened."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "loop").symlink_to(folder)
    (folder / "broken").symlink_to("nowhere")
    (folder / "self").symlink_to("self")
    (tmp_path / "outside.txt").write_text("b")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    os.mkfifo(folder / "pipe")
    found = dict(names(folder))

    assert (found["data/a.txt"], found["data/link.txt"]) == ("", "")
    assert "not followed" in found["data/loop"]
    assert "cannot be read" in found["data/broken"]
    assert "cannot be read" in found["data/self"]
    assert found["data/pipe"] == "not a regular file"
    assert len(found) == 6


@POSIX
def test_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed folder inside a source is refused by name, not dropped."""
    (tmp_path / "data" / "closed").mkdir(parents=True)
    (tmp_path / "data" / "a.txt").write_text("a")
    real = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # permissions do not bind root, who may run this

    assert names(tmp_path / "data") == [
        ("data/a.txt", ""),
        ("data/closed", "a folder that cannot be listed: Permission denied"),
    ]


def test_bad_sources(tmp_path: Path) -> None:
    """A missing source and a folder with no files are named, with the remedy."""
    (tmp_path / "hollow" / "deep").mkdir(parents=True)

    with pytest.raises(SourceError, match=r"gone: no such file or folder; check"):
        find_files([tmp_path / "gone"])
    with pytest.raises(SourceError, match=r"hollow: a folder with no files; give"):
        find_files([tmp_path / "hollow"])


@POSIX
def test_special_file_as_a_source(tmp_path: Path) -> None:
    """A pipe as a source is refused at once."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(SourceError, match="neither a file nor a folder"):
        find_files([tmp_path / "pipe"])


def test_globs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A glob gives files alone, named from its last plain folder on; a file whose name looks like a glob is itself."""
    (tmp_path / "data" / "deep.txt").mkdir(parents=True)
    for name in ("a.txt", "b.csv", "deep.txt/c.txt", "[d].txt"):
        (tmp_path / "data" / name).write_text(name)
    monkeypatch.chdir(tmp_path)

    assert names("data/*.txt") == [("data/[d].txt", ""), ("data/a.txt", "")]
    assert names(str(tmp_path / "data" / "**" / "c.*")) == [("data/deep.txt/c.txt", "")]
    assert names("data/[d].txt") == [("[d].txt", "")]
    with pytest.raises(SourceError, match=r"data/\*\.gz: no file is like it; check"):
        find_files(["data/*.gz"])


def test_include_and_exclude(tmp_path: Path) -> None:
    """Globs hold for a file's whole name and for its last step; excluding wins; to leave nothing is an error."""
    (tmp_path / "data" / "old").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "c.csv", "old/a.txt"):
        (tmp_path / "data" / name).write_text(name)

    def left(include: tuple[str, ...], exclude: tuple[str, ...] = ()) -> list[str]:
        return [file.name for file in find_files([str(tmp_path / "data")], include, exclude)]

    assert left(("*.txt",)) == ["data/a.txt", "data/b.txt", "data/old/a.txt"]
    assert left(("*.txt",), ("data/old/*", "b.*")) == ["data/a.txt"]
    assert left((), ("*.txt",)) == ["data/c.csv"]
    with pytest.raises(SourceError, match=r"--include and --exclude leave none of 4 files"):
        left(("*.gz",))


def test_stdin(tmp_path: Path) -> None:
    """A dash is the standard input, once, under a name of its own, beside other sources."""
    (tmp_path / "a.txt").write_text("a")

    found = find_files(["-", str(tmp_path / "a.txt"), "-"])

    assert [("a.txt", str(tmp_path / "a.txt")), ("stdin", "-")] == [(file.name, file.path) for file in found]


@POSIX
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """A file whose name is no UTF-8 is found, and opens by the path that is given."""
    place = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(place)).write_bytes(b"text")

    (file,) = find_files([str(tmp_path)])

    assert file.name == f"{tmp_path.name}/caf\udce9.txt"
    with open_source(file.path) as stream:
        assert stream.read() == b"text"


@POSIX
def test_sockets_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket in a folder is refused with a reason and not opened."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")  # addresses of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")

        assert names("../data") == [("data/s", "not a regular file")]
