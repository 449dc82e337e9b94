"""`bytropix demo`: the whole line on data that every machine has.

the standard library's sources -> FOLDER/stdlib.bx -> FOLDER/run -> bits per byte beside xz -> a sample
"""

import json
import shutil
import sys
import sysconfig
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from bytropix.datasets.store import Store
from bytropix.errors import SourceError
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.commands.evaluate import compare, report
from bytropix.jobs.demo_folder import make_way
from bytropix.jobs.recipe import read_recipe
from bytropix.jobs.train import Training
from bytropix.jobs.writing import harmless, sample_text
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
LEAVES = {"sources", "stdlib.bx", "run"}
VAL_FRACTION = 0.02  # about 200 kB: enough to tell models apart, few enough to score in a minute
SAMPLE_BYTES = 400


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Run the whole line in about four minutes on two CPU cores.

    Ingests the Python standard library's sources, trains a small WuBu model for about three minutes, prints its bits
    per byte beside those of xz and an n-gram model on the same held-out bytes, whoever wins, and a generated sample.
    """

    folder: Path = Path("runs/demo")
    """Where store and run go; one that an earlier demo left is replaced."""
    recipe: Path | None = None
    """Another recipe than the demo's own."""
    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> int:
        """Ingest, train, evaluate, sample."""
        began = time.perf_counter()
        make_way(self.folder, LEAVES)
        _say(f"1/4 ingest: the standard library's sources -> {self.folder / 'stdlib.bx'}")
        store = _ingest(self.folder)
        _say(f"2/4 train: {self.folder / 'run'} (about three minutes; Ctrl-C stops it and keeps what is there)")
        packaged = Path(str(files("bytropix.jobs"))) / "recipes" / "demo.toml"
        recipe = read_recipe(self.recipe or packaged)
        training = Training(ByteTask(recipe, store), self.folder / "run", resume=False)
        training()
        _say("3/4 evaluate: held-out files, each byte once")
        figures = compare(training.run, store, split="val")
        _say("4/4 generate")
        sample = sample_text(training.run.model(), store.patcher(), recipe.train.context, SAMPLE_BYTES)
        figures |= {"sample": sample, "seconds": time.perf_counter() - began}
        print(json.dumps(figures, ensure_ascii=False) if self.json else _story(figures, self.folder))
        return 0


def _ingest(folder: Path) -> Store:
    """Copy the sources beside the store, so that the demo's input can be looked at, and ingest them."""
    library = Path(sysconfig.get_path("stdlib"))
    sources = folder / "sources"
    count = 0
    for file in sorted(library.rglob("*.py")):
        place = file.relative_to(library)
        if file.is_file() and not LEFT_OUT & set(place.parts):
            (sources / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, sources / place)
            count += 1
    if not count:
        raise SourceError(f"{library}: no Python sources there; run `bytropix ingest bytes` on files of your own")
    config = IngestConfig(val_fraction=VAL_FRACTION)
    return ingest_bytes([sources], folder / "stdlib.bx", config, workers=2).store


def _story(figures: dict[str, Any], folder: Path) -> str:
    """Return the outcome as lines for a reader."""
    run = folder / "run"
    return "\n".join(
        [
            "",
            report(figures),
            "",
            "sample, written from nothing:",
            *(f"  | {line}" for line in harmless(figures["sample"]).splitlines()),
            "",
            f"run: {run}",
            f"curves: tensorboard --logdir {run}",
            f"more text: bytropix generate --run {run} --prompt 'def '",
            f"{figures['seconds']:.0f} s in all",
        ]
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
