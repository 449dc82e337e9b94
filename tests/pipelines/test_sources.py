"""What is found in files and folders."""

import os
import sys
from pathlib import Path

import pytest

from bytropix.errors import SourceError
from bytropix.pipelines.sources import find_files

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="such entries do not exist on Windows")


def names(*sources: Path) -> list[tuple[str, str]]:
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
    """A folder and a file of it give that file once, under one name, and faults in it are the user's to know."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "z.txt").write_text("a")
    one, two = (
        find_files(order)
        for order in ([tmp_path / "data", tmp_path / "data/z.txt"], [tmp_path / "data/z.txt", tmp_path / "data"])
    )

    assert [(file.name, file.named) for file in one] == [("data/z.txt", True)]
    assert one == two


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
