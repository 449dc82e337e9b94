"""The loops that docs/streaming.md shows, run as they stand, and how exact they are where one resumes."""

import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bytropix.datasets import ByteStream
from bytropix.datasets.store import PartLayout, Store
from bytropix.jobs.bench.clip_store import LAYOUTS, write_little_clips
from bytropix.pipelines.config import IngestConfig
from bytropix.pipelines.ingest import ingest_bytes

PROJECT = Path(__file__).resolve().parents[2]
PAGE = PROJECT / "docs" / "streaming.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores that the page speaks of."""
    folder = tmp_path_factory.mktemp("loops")
    for seed, (name, layout) in enumerate({"corpus": "zarr", "code": "zarr", "tars": "webdataset"}.items()):
        letters = np.random.default_rng(seed).integers(97, 123, 150_000, dtype=np.uint8)
        (folder / f"{name}.txt").write_bytes(letters.tobytes())
        config = IngestConfig(val_fraction=0.1, document_bytes=4096, layout=PartLayout(format=layout))  # type: ignore[arg-type]
        ingest_bytes([folder / f"{name}.txt"], folder / f"{name}.bx", config)
    write_little_clips(folder / "films.bx", LAYOUTS["zarr raw"])
    return folder


def test_the_page_runs(folder: Path) -> None:
    """All Python blocks of the page, in order, in one process whose warnings are a reader's own."""
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    script = folder / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    path = [str(PROJECT)] if "site-packages" not in str(sys.modules["bytropix"].__file__) else []
    code = f"import sys, runpy; sys.path[:0] = {path}; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr[-3000:]
    assert len(blocks) >= 9


def stream_of(folder: Path, **flags: Any) -> ByteStream:
    """Return a stream of two epochs."""
    return ByteStream(Store.open(folder / "corpus.bx"), context=999, batch=16, seed=1, epochs=2, **flags)


@pytest.mark.filterwarnings("ignore")  # torchdata asks torch for what torch calls deprecated; more workers than cores
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("last", ["fill", "short"])
def test_a_stateful_loader_resumes_at_any_batch(folder: Path, workers: int, last: str) -> None:
    """Before the first batch, at odd and even ones, at an epoch's end and behind the last: what follows is the same."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    whole = [batch.bytes.numpy().tobytes() for batch in stream_of(folder, last=last)]
    per_epoch = len(whole) // 2
    for cut in (0, 1, 4, per_epoch, per_epoch + 1, len(whole)):
        loader = StatefulDataLoader(stream_of(folder, last=last), batch_size=None, num_workers=workers)
        before = iter(loader)
        found = [batch.bytes.numpy().tobytes() for batch in islice(before, cut)]
        state = loader.state_dict()
        del before
        resumed = StatefulDataLoader(stream_of(folder, last=last), batch_size=None, num_workers=workers)
        resumed.load_state_dict(state)
        found += [batch.bytes.numpy().tobytes() for batch in resumed]

        assert found == whole


@pytest.mark.filterwarnings("ignore")  # Lightning's own
@pytest.mark.parametrize("step", ["dataloader_iter", "batch"])
def test_lightning_resumes(folder: Path, step: str) -> None:
    """With `dataloader_iter` at the next batch; with `batch` it skips the one that it had fetched, as the page says."""
    import lightning
    import torch

    seen: list[int] = []

    class Counting(lightning.LightningModule):
        """Notes which batches it is trained on."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            """Return the plainest."""
            return torch.optim.SGD(self.parameters())

        def note(self, batch: Any) -> torch.Tensor:
            """Take note."""
            seen.append(batch.position)
            return self.weight * batch.n_bytes

    class Iterating(Counting):
        """Takes batches when it needs them."""

        def training_step(self, dataloader_iter: Any) -> torch.Tensor:
            """Take one."""
            return self.note(next(dataloader_iter)[0])

    class Given(Counting):
        """Is given batches."""

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            """Be given one."""
            return self.note(batch)

    def fit(steps: int, checkpoint: Path | None = None) -> lightning.Trainer:
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        model = Iterating() if step == "dataloader_iter" else Given()
        trainer.fit(model, stream_of(folder), ckpt_path=checkpoint)
        return trainer

    fit(4).save_checkpoint(folder / f"{step}.ckpt")
    fit(7, folder / f"{step}.ckpt")
    skipped = 0 if step == "dataloader_iter" else 1

    assert seen == [16 * number for number in (0, 1, 2, 3, 4 + skipped, 5 + skipped, 6 + skipped)]
