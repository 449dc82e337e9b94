"""One step of the training loop, as the device sees it."""

from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bytropix.datasets.store import Store
from bytropix.jobs.byte_task import BYTES, ByteTask
from bytropix.jobs.incoming import incoming
from bytropix.jobs.metrics import RunLog
from bytropix.jobs.recipe import Recipe
from bytropix.jobs.train import StopFlag, Training


class Questions(TorchDispatchMode):
    """Notes the kernels that hand a number to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one kernel."""
        self.asked += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_step_that_is_not_logged_asks_the_device_nothing(recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """Gradients, clipping, the optimizer's step and the loss that is held back: the host learns no number of them."""
    training = Training(ByteTask(recipe, store), tmp_path / "run", resume=False)
    assert recipe.train.log_every > 1
    batches = incoming(training.stream, training.device)
    with RunLog(training.run.path, BYTES, first=0, steps=recipe.train.steps) as log, Questions() as questions:
        assert training._one_step(batches, log, StopFlag())

    assert training.step == 1
    assert not questions.asked


def test_attention_is_not_planned_for_each_number_of_patches(recipe: Recipe, store: Store, tmp_path: Path) -> None:
    """While a batch runs through the model, cuDNN's attention, which plans anew for each shape, is left out."""
    training = Training(ByteTask(recipe, store), tmp_path / "run", resume=False)
    seen: list[bool] = []
    for module in training.model.modules():
        module.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    batch = next(iter(training.stream))
    training._backward([batch], batch.n_bytes)

    assert seen
    assert not any(seen)
    assert torch.backends.cuda.cudnn_sdp_enabled()
