"""Speed of generation, byte by byte, with everything that is cached.

text -> Reader -> log-probabilities -> Sampler -> the next byte of the text is read, whatever was drawn
"""

from collections.abc import Callable

import torch

from bytropix.byte_lm import (
    ByteTransformer,
    ByteTransformerConfig,
    SamplerConfig,
    WuBuByteLM,
    WuBuConfig,
)
from bytropix.byte_lm.generation import Reader
from bytropix.byte_lm.sampling import Sampler
from bytropix.jobs.bench.corpus import some_text
from bytropix.jobs.bench.rows import BenchRow, BenchSettings, Contender, Target, against, torch_threads
from bytropix.patching import PatchConfig, Patcher, fit_patcher

CONTEXT, PROMPT_BYTES, BYTES = 512, 200, 300
TEXT_BYTES = 500_000


def bench_generate(settings: BenchSettings) -> list[BenchRow]:
    """Measure bytes a second on one thread; untrained weights take the time of trained ones."""
    return [compare(settings, WuBuConfig(), ByteTransformerConfig(), n_bytes=BYTES)]


def compare(settings: BenchSettings, wubu: WuBuConfig, transformer: ByteTransformerConfig, *, n_bytes: int) -> BenchRow:
    """Measure two models of given sizes on the same text."""
    text = some_text(settings.data, TEXT_BYTES)
    patcher = fit_patcher([text], PatchConfig())
    torch.manual_seed(0)
    models = WuBuByteLM(wubu, context=CONTEXT), ByteTransformer(transformer, context=CONTEXT)
    ours, theirs = (_write(model.eval(), patcher, text[: PROMPT_BYTES + n_bytes]) for model in models)
    with torch_threads(1):
        return against(
            "generate: WuBu, default sizes, one thread",
            "bytes/s",
            Contender(work=ours, amount=n_bytes),
            Contender(work=theirs, amount=n_bytes),
            settings.repeats,
            called="the plain transformer, cached",
            clock="processor",
            targets=(Target("value", ">=", 300),),
            note=f"{n_bytes} bytes after a prompt of {PROMPT_BYTES}",
        )


def _write(model: WuBuByteLM | ByteTransformer, patcher: Patcher, text: bytes) -> Callable[[], None]:
    """Return a pass over the text behind the prompt, with a draw before each byte."""

    def work() -> None:
        reader = Reader(model, patcher, window=CONTEXT, stride=CONTEXT // 2)
        sampler = Sampler(SamplerConfig())
        reader.feed(text[:PROMPT_BYTES])
        for value in text[PROMPT_BYTES:]:
            sampler(reader.log_probs, reader.history)
            reader.push(value)

    return work
