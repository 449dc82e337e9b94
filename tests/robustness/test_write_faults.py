"""Calls to the system that fail: a full disk, a failing disk, the end of the process, at any call that writes."""

import errno
import sys
from pathlib import Path

import pytest

from bytropix.jobs.bench.kill_cases import try_cases
from bytropix.jobs.bench.write_faults import Calls, fail_at_calls, watched

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")


def test_failing_calls_leave_nothing_torn(tmp_path: Path) -> None:
    """Whichever call fails: an error of ours or a success, nothing torn, and a rerun makes every byte."""
    trials = try_cases(fail_at_calls, tmp_path, 4, seed=0)

    assert [f"{trial.case}, {trial.how}: {trial.fault}" for trial in trials if trial.fault] == []
    assert {"unfinished", "before", "after"} == {trial.found for trial in trials}
    assert {"write", "fsync"} <= {trial.how.split(", ")[1].split()[0].rstrip(":") for trial in trials}


def test_calls_are_counted_and_fail(tmp_path: Path) -> None:
    """What writes is counted in order, and the chosen call fails, a write half done."""

    def work() -> None:
        (tmp_path / "folder").mkdir(exist_ok=True)
        with (tmp_path / "folder" / "a").open("wb") as file:
            file.write(b"12345678")
        (tmp_path / "folder" / "a").replace(tmp_path / "b")

    with watched(Calls(tmp_path)) as calls:
        work()
    assert calls.seen == ["mkdir folder", "write a", "replace b"]
    assert (tmp_path / "b").read_bytes() == b"12345678"
    with watched(Calls(tmp_path, fails=1, trouble=errno.ENOSPC)), pytest.raises(OSError, match="No space left"):
        work()
    assert (tmp_path / "folder" / "a").read_bytes() == b"1234"
    work()
    assert (tmp_path / "b").read_bytes() == b"12345678"
