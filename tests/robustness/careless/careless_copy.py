"""A writer of stores as it should not be, for the trials to catch; the folder of this file is put on their path."""

import shutil
import time
from functools import partial
from pathlib import Path

from bytropix.datasets.store import PartLayout
from bytropix.jobs.bench.kill_cases import ingest, small_corpus
from bytropix.jobs.bench.kills import Case, Trial, kill_at_random


def copy(store: Path, place: Path) -> None:
    """Copy a store file by file, its manifest first."""
    for path in sorted(store.rglob("*"), key=lambda path: (path.name != "manifest.json", path)):
        target = place / "store.bx" / path.relative_to(store)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            time.sleep(0.002)


def kill_a_copy(folder: Path) -> list[Trial]:
    """Kill such a copy eight times."""
    (folder / "whole").mkdir()
    ingest([small_corpus(folder / "corpus")], PartLayout(), folder / "whole")
    (folder / "trials").mkdir()
    case = Case(name="copy", operation=partial(copy, folder / "whole" / "store.bx"))
    return kill_at_random(case, folder / "trials", 8, 0)
