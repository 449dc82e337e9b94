"""What a run tells while it trains: TensorBoard events, log.jsonl, one progress line on stderr.

loss/train_nats  eval/bits_per_byte  speed/bytes_per_second  time/data_wait_pct  optim/lr
grad_norm/<module>  levels/<n>/curvature|scale|spread  patches/length_bytes (histogram)  sample (text)
"""

import json
import math
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from bytropix.datasets.store import Store
from bytropix.jobs.evaluation import Evaluation


def module_gradient_norms(model: nn.Module) -> dict[str, float]:
    """Return the gradient norm of each direct child of `model` by metric tag."""
    norms = {}
    for name, child in model.named_children():
        parts = [p.grad.norm() for p in child.parameters() if p.grad is not None]
        if parts:
            norms[f"grad_norm/{name}"] = float(torch.stack(parts).norm())
    return norms


class RunLog:
    """The writers of one run; use as a context manager.

    Args:
        path: The run folder.
        first: Step the run goes on from.
        steps: Last step.
    """

    def __init__(self, path: Path, *, first: int, steps: int) -> None:
        # Steps logged after the checkpoint that a resumed run goes on from are hidden by TensorBoard.
        self._events = SummaryWriter(str(path), purge_step=first + 1 if first else None)
        self._lines = (path / "log.jsonl").open("a", encoding="utf-8")
        self._bar = tqdm(total=steps, initial=first, unit="step", dynamic_ncols=True, desc="train")
        self._bits = math.nan

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._events.close()
        self._lines.close()

    def describe(self, model: nn.Module, store: Store) -> None:
        """Note what is trained on what."""
        count = sum(parameter.numel() for parameter in model.parameters())
        self._line(
            {
                "event": "start",
                "parameters": count,
                "store": store.path.name,
                "fingerprint": store.fingerprint,
            }
        )

    def step(self, step: int, loss: Tensor, *, read: int, seconds: float, waited: float) -> None:
        """Log one optimizer step.

        Args:
            step: Number of the step, from 1.
            loss: Mean nats per byte.
            read: Bytes read.
            seconds: Wall-clock time of the step.
            waited: Share of `seconds` spent waiting for data.
        """
        nats = float(loss)
        speed = read / seconds
        self.scalars(
            step,
            {
                "loss/train_nats": nats,
                "speed/bytes_per_second": speed,
                "time/data_wait_pct": 100 * waited / seconds,
            },
        )
        self._line({"event": "step", "step": step, "loss_nats": nats})
        shown = {"bits/byte": f"{nats / math.log(2):.3f}", "kB/s": f"{speed / 1e3:.1f}"}
        if not math.isnan(self._bits):
            shown["val"] = f"{self._bits:.3f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log scalars by tag."""
        for tag, value in values.items():
            self._events.add_scalar(tag, value, step)

    def patches(self, step: int, starts: Tensor) -> None:
        """Log the histogram of patch lengths in bytes of a batch of starts (B, T)."""
        places = starts.flatten().nonzero().flatten()
        self._events.add_histogram("patches/length_bytes", places.diff().float(), step)
        self.scalars(step, {"patches/mean_length_bytes": float(places.diff().float().mean())})

    def evaluated(self, step: int, result: Evaluation) -> None:
        """Log an evaluation."""
        self._bits = result.bits_per_byte
        self.scalars(step, {"eval/bits_per_byte": result.bits_per_byte})
        self._line(
            {
                "event": "evaluate",
                "step": step,
                "bits_per_byte": result.bits_per_byte,
                "bytes": result.n_bytes,
            }
        )

    def text(self, step: int, sample: str) -> None:
        """Log a generated sample."""
        self._events.add_text("sample", f"    {sample}".replace("\n", "\n    "), step)

    def _line(self, row: dict[str, object]) -> None:
        self._lines.write(json.dumps(row) + "\n")
        self._lines.flush()
