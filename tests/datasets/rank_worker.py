"""What every rank of `test_torchrun.py` runs under a real torchrun, one thing after the other in one process.

rank_worker.py STORE RECIPE FOLDER PORT -> runs in FOLDER, FOLDER/<what>-<rank>.txt
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from bytropix.datasets.store import Store
from bytropix.errors import BytropixError, StoreError
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.ranks import Ranks, joined
from bytropix.jobs.recipe import Recipe, read_recipe
from bytropix.jobs.train import Training

sys.path.append(str(Path(__file__).parents[2]))  # as a script it does not find the other tests

from tests.datasets.poison import PoisonedTask

POISON = 9  # of 8 windows a step: the second of step 2, a row of the second rank's
DAMAGED = "part 7, offset 4096: damaged"


def main(store: Path, recipe: Recipe, folder: Path, port: str) -> None:
    """Train with both ways of sharing, with dropout, and let ranks fail."""
    with joined(torch.device("cpu")) as ranks:
        for shard in ("ddp", "fsdp"):
            run = change(recipe, steps=6, batch=recipe.train.batch // 2, accumulate=2, shard=shard, sample_bytes=3)
            assert Training(ByteTask(run, Store.open(store)), folder / shard, resume=False, ranks=ranks)()
        dropping = replace(recipe, wubu=replace(recipe.wubu, dropout=0.2))
        for steps in (3, 6):
            run = change(dropping, steps=steps, checkpoint_every=3)
            assert Training(ByteTask(run, Store.open(store)), folder / f"drop-{steps}", resume=False, ranks=ranks)()
        run = change(dropping, steps=6)
        assert Training(ByteTask(run, Store.open(store)), folder / "drop-3", resume=True, ranks=ranks)()
        for shard in ("ddp", "fsdp"):
            for steps in (3, 5):  # stopped and gone on with
                task = PoisonedTask(poisoned(recipe, steps=steps, shard=shard), Store.open(store), losses=(POISON,))
                assert Training(task, folder / f"poisoned-{shard}", resume=True, ranks=ranks)()
        note(folder, "misfit", ranks.rank, misfit(recipe, store, folder, ranks))
        note(folder, "one-fails", ranks.rank, one_fails(ranks))
    # A second group, whose ranks wait for each other five seconds at most.
    os.environ |= {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "False", "BYTROPIX_RANKS_TIMEOUT": "5"}
    note(folder, "one-hangs", ranks.rank, one_hangs(folder))


def poisoned(recipe: Recipe, **fields: object) -> Recipe:
    """Return the recipe of a run that keeps a mean of its weights and may leave steps out."""
    return change(recipe, **({"ema": 0.5, "bad_steps": 1, "checkpoint_every": 1} | fields))


def misfit(recipe: Recipe, store: Path, folder: Path, ranks: Ranks) -> str:
    """Train with a batch that the ranks do not divide and return how it ends here."""
    try:
        task = ByteTask(change(recipe, batch=7), Store.open(store))
        Training(task, folder / "misfit", resume=False, ranks=ranks)
    except (BytropixError, SystemExit) as error:
        return f"{type(error).__name__} {error}"
    return "nothing was raised"


def one_fails(ranks: Ranks) -> str:
    """Raise an error on rank 1 alone and return how it ends here."""
    try:
        with ranks.together():
            if ranks.rank == 1:
                raise StoreError(DAMAGED)
    except (BytropixError, SystemExit) as error:
        return f"{type(error).__name__} {error}"
    return "nothing was raised"


def one_hangs(folder: Path) -> str:
    """Let rank 1 do something else for ever and return how rank 0 ends."""
    try:
        with joined(torch.device("cpu")) as ranks:
            if ranks.rank == 1:
                while not (folder / "one-hangs-0.txt").exists():
                    time.sleep(0.05)
                os._exit(0)
            ranks.sums(1)
    except BytropixError as error:
        return f"{type(error).__name__} {error}"
    return "nothing was raised"


def change(recipe: Recipe, **fields: object) -> Recipe:
    """Return the recipe with other fields of its loop."""
    return replace(recipe, train=replace(recipe.train, **fields))  # type: ignore[arg-type]


def note(folder: Path, what: str, rank: int, text: str) -> None:
    """Leave a rank's words where the test finds them."""
    beside = folder / f".{what}-{rank}"
    beside.write_text(text, encoding="utf-8")
    beside.rename(folder / f"{what}-{rank}.txt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), read_recipe(Path(sys.argv[2])), Path(sys.argv[3]), sys.argv[4])
