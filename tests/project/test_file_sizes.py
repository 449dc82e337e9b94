"""Files stay short enough to read at one sitting."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
MOST_LINES = 350


def test_source_files_are_short() -> None:
    """A file past 350 lines does more than one thing: split it by what changes together."""
    files = [path for room in ("bytropix", "datasets", "jobs", "pipelines") for path in (PROJECT / room).rglob("*.py")]
    lengths = {path.relative_to(PROJECT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in files}

    assert files
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}
