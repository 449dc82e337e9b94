"""What a run tells while it trains: TensorBoard events, log.jsonl, one progress line on stderr.

loss/train_nats  eval/bits_per_byte  speed/bytes_per_second  time/data_wait_pct  optim/lr
grad_norm/<module>  levels/<n>/curvature|scale|spread  patches/length_bytes (histogram)  sample (text)
of a mixture: mixture/<store>/share|epochs  eval/<store>/bits_per_byte        under quarantine: data/damaged_blocks
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from bytropix.datasets.mixture import Mixture
from bytropix.errors import RunError
from bytropix.jobs.evaluation import Evaluation
from bytropix.jobs.progress import progress_bar
from bytropix.jobs.ranks import ALONE, Ranks
from bytropix.jobs.run_folder import LOG
from bytropix.jobs.sharding import gradient_norm
from bytropix.jobs.source import Source, facts_of, stores_of


def module_gradient_norms(model: nn.Module) -> dict[str, float]:
    """Return the gradient norm of each direct child of `model` by metric tag; all ranks come here together."""
    return {
        f"grad_norm/{name}": float(gradient_norm(child.parameters()))
        for name, child in model.named_children()
        if any(parameter.grad is not None for parameter in child.parameters())
    }


class Silence:
    """Stands where a rank that does not speak has no writer: takes every call and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class RunLog:
    """The writers of one run; use as a context manager.

    Steps are held back and written together, so that the loop does not wait for the device at each of them.

    Args:
        path: The run folder.
        first: Step the run goes on from.
        steps: Last step.
        ranks: All ranks; those that do not speak take part in sums and write nothing.
    """

    def __init__(self, path: Path, *, first: int, steps: int, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._events: Any = Silence()
        self._lines: Any = Silence()
        self._bar: Any = Silence()
        if ranks.speaks:
            # Steps logged after the checkpoint that a resumed run goes on from are hidden by TensorBoard; so are all
            # steps of a run that was killed before its first checkpoint.
            self._events = SummaryWriter(str(path), purge_step=first + 1)
            self._lines = (path / LOG).open("a", encoding="utf-8")
            self._bar = progress_bar("train", steps, unit="step", done=first)
        self._held: list[tuple[int, int, Tensor]] = []
        self._read = 0
        self._waited = 0.0
        self._since = time.perf_counter()
        self._validation = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._events.close()
        self._lines.close()

    def describe(self, model: nn.Module, source: Source) -> None:
        """Note what is trained on what."""
        count = sum(parameter.numel() for parameter in model.parameters())
        store = stores_of(source)[0]
        row = {"event": "start", "parameters": count, "store": store.name, "fingerprint": store.fingerprint}
        mixed = {"mixture": facts_of(source)} if isinstance(source, Mixture) else {}
        self._line({**row, **mixed, "ranks": self._ranks.count})

    def step(self, step: int, loss: Tensor, *, position: int, read: int, waited: float) -> None:
        """Hold one optimizer step until `flush`.

        Args:
            step: Number of the step, from 1.
            loss: This rank's share of the mean nats per byte, on any device.
            position: Windows that all ranks were given before this step.
            read: Bytes read, by all ranks.
            waited: Seconds spent waiting for data.
        """
        self._held.append((step, position, loss))
        self._read += read
        self._waited += waited
        self._bar.update()

    def flush(self) -> None:
        """Write the steps held back, with the speed since the last call, and all events to disk.

        All ranks come here together.

        Raises:
            RunError: A loss is not finite.
        """
        if self._held:
            self._write_held()
        self._events.flush()

    def _write_held(self) -> None:
        losses = self._ranks.add_up(torch.stack([loss for _, _, loss in self._held])).tolist()
        seconds = time.perf_counter() - self._since
        for (step, position, _), nats in zip(self._held, losses, strict=True):
            if not math.isfinite(nats):
                raise RunError(f"the loss of step {step} is {nats}; start a new run with a lower --optim.lr")
            self.scalars(step, {"loss/train_nats": nats})
            self._line({"event": "step", "step": step, "loss_nats": nats, "position": position})
        rates = {"speed/bytes_per_second": self._read / seconds, "time/data_wait_pct": 100 * self._waited / seconds}
        self.scalars(self._held[-1][0], rates)
        speed = f"{self._read / seconds / 1e3:.1f} kB/s"
        self._bar.set_postfix_str(f"{losses[-1] / math.log(2):.3f} bits/byte, {speed}{self._validation}", refresh=False)
        self._held.clear()
        self.restart_clock()

    def restart_clock(self) -> None:
        """Leave what happened since the last flush, an evaluation say, out of the speed."""
        self._read, self._waited, self._since = 0, 0.0, time.perf_counter()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log scalars by tag."""
        for tag, value in values.items():
            self._events.add_scalar(tag, value, step)

    def patches(self, step: int, starts: Tensor) -> None:
        """Log the histogram of patch lengths in bytes of a batch of starts (B, T)."""
        if not self._ranks.speaks:
            return
        row, column = starts.nonzero().T
        lengths = column.diff()[row.diff() == 0].float()  # the last patch of a row is cut by its end
        if not len(lengths):
            return
        self._events.add_histogram("patches/length_bytes", lengths, step)
        self.scalars(step, {"patches/mean_length_bytes": float(lengths.mean())})

    def evaluated(self, step: int, found: Mapping[str, Evaluation]) -> None:
        """Log an evaluation of one store, or of each of several and all together, by name."""
        n_bytes = sum(one.n_bytes for one in found.values())
        together = sum(one.nats for one in found.values()) / (math.log(2) * n_bytes)
        each = {name: one.bits_per_byte for name, one in found.items()} if len(found) > 1 else {}
        self._validation = f", val {together:.3f}"
        self.scalars(step, {"eval/bits_per_byte": together})
        self.scalars(step, {f"eval/{name}/bits_per_byte": value for name, value in each.items()})
        row = {"event": "evaluate", "step": step, "bits_per_byte": together, "bytes": n_bytes}
        self._line({**row, "each": each} if each else row)

    def text(self, step: int, sample: str) -> None:
        """Log a generated sample."""
        self._events.add_text("sample", f"    {sample}".replace("\n", "\n    "), step)

    def _line(self, row: dict[str, object]) -> None:
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
