"""Training speed of the WuBu model and of a plain transformer of the same size.

text in patches -> batches of 16 windows of 513 bytes -> loss, gradients, AdamW: a few steps of each, in turns
"""

import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from bytropix.byte_lm import ByteTransformer, ByteTransformerConfig, WuBuByteLM, WuBuConfig
from bytropix.jobs.bench.corpus import documents, some_text
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, torch_threads
from bytropix.optim import OptimConfig, make_adamw
from bytropix.patching import PatchConfig, fit_patcher

CONTEXT, BATCH, STEPS = 512, 16, 3
TEXT_BYTES = 1_000_000
THREADS = 2


def bench_train(settings: BenchSettings) -> list[BenchRow]:
    """Measure bytes a second of whole optimizer steps."""
    return [compare(settings, WuBuConfig(), ByteTransformerConfig(), batch=BATCH)]


def compare(settings: BenchSettings, wubu: WuBuConfig, transformer: ByteTransformerConfig, *, batch: int) -> BenchRow:
    """Measure two models of given sizes on the same windows."""
    batches = _batches(settings, batch)
    torch.manual_seed(0)
    ours, theirs = WuBuByteLM(wubu, context=CONTEXT), ByteTransformer(transformer, context=CONTEXT)
    amount = STEPS * batch * CONTEXT / 1e3
    with torch_threads(min(THREADS, os.cpu_count() or 1)):
        return against(
            "train: WuBu, default sizes",
            "kB/s",
            Contender(work=_steps(ours, batches), amount=amount),
            Contender(work=_steps(theirs, batches), amount=amount),
            settings.repeats,
            called="the plain transformer",
            targets=(Target("ratio", ">=", 1.5),),
            note=f"{_millions(ours)} and {_millions(theirs)} parameters, context {CONTEXT}, batch {batch}",
        )


def _batches(settings: BenchSettings, batch: int) -> list[tuple[Tensor, Tensor, int]]:
    """Return a few batches of windows: bytes, starts, and the most patches of a row."""
    data, ends = documents(some_text(settings.data, TEXT_BYTES))
    starts = fit_patcher([data], PatchConfig()).patch(data, ends)[1]
    generator = np.random.default_rng(0)
    found = []
    for _ in range(STEPS):
        begins = generator.integers(0, data.size - CONTEXT - 1, batch)
        places = begins[:, None] + np.arange(CONTEXT + 1)
        flags = torch.from_numpy(starts[places])
        flags[:, 0] = True
        found.append((torch.from_numpy(data[places]), flags, int(flags[:, :CONTEXT].sum(1).max())))
    return found


def _steps(model: WuBuByteLM | ByteTransformer, batches: list[tuple[Tensor, Tensor, int]]) -> Callable[[], None]:
    """Return a step for each batch."""
    optimizer = make_adamw(model, OptimConfig())

    def work() -> None:
        model.train()
        for text, starts, patches in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = model.nats(text, starts, patches)[:, 1:].mean()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return work


def _millions(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f}M"
