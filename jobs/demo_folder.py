"""The folder that a demo leaves: it may be run again, and takes away what is its own and nothing else.

FOLDER as an earlier demo left it -> empty | RunError where there is anything else in it
"""

import shutil
from pathlib import Path

from bytropix.errors import RunError


def make_way(folder: Path, ours: set[str]) -> None:
    """Empty the folder of a demo.

    Args:
        folder: May be missing.
        ours: Names that the demo gives in it.

    Raises:
        RunError: The folder holds something else; nothing is removed then.
    """
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.exists() and (not folder.is_dir() or found - ours):
        raise RunError(f"{folder}: holds more than a demo left there; choose another --folder")
    for path in sorted(folder / name for name in found):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
