"""Training on packed documents: the loss of a batch is that of its documents, each read alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bytropix.datasets.store import Store
from bytropix.jobs.byte_task import ByteTask
from bytropix.jobs.recipe import Recipe
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.train import Training


@pytest.mark.parametrize("model", ["wubu", "transformer"])
def test_the_loss_is_the_mean_over_documents_read_alone(
    recipe: Recipe, store: Store, tmp_path: Path, model: str
) -> None:
    """Every data byte counts once, padding not at all, and no document tells another anything."""
    still = replace(
        recipe,
        model=model,
        train=replace(recipe.train, pack="documents", batch=6, context=600),
        wubu=replace(recipe.wubu, dropout=0.0, nesting=replace(recipe.wubu.nesting, dropout=0.0)),
        transformer=replace(recipe.transformer, dropout=0.0, width=16, layers=1, heads=2),
    )
    training = Training(ByteTask(still, store), tmp_path / "run", resume=False)
    batches = iter(training.stream)
    batch = next(found for found in batches if found.documents.max() > 1 and found.n_bytes < found.bytes.numel())
    loss, _ = training._backward([batch], batch.n_bytes)
    alone = 0.0
    with torch.no_grad():
        for values, starts, numbers in zip(batch.bytes, batch.starts, batch.documents, strict=True):
            for number in range(1, int(numbers.max()) + 1):
                own = numbers == number
                alone += float(training.model.nats(values[None, own], starts[None, own], int(own.sum())).sum())

    assert float(loss) == pytest.approx(alone / batch.n_bytes, rel=1e-5)


def test_a_run_trains_on_packed_documents(cli: Any, store_path: Path, tiny: Path, tmp_path: Path) -> None:
    """--pack documents trains to the end, and its checkpoint is not continued with rows cut another way."""
    words = ["train", "bytes", "--store", store_path, "--run", tmp_path / "run"]

    assert cli(*words, "--recipe", tiny, "--pack", "documents").code == 0
    assert RunFolder(tmp_path / "run").latest().name == "step-00000008"
    assert cli(*words, "--resume", "--train.steps", 10).code == 0
    assert "pack" in cli(*words, "--resume", "--train.steps", 12, "--pack", "bytes").refusal()
