"""`bytropix generate`: a prompt and what a trained model writes after it.

prompt -> Reader (online patches, cached window) -> sampler -> bytes -> whole characters -> stdout, as they come
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from bytropix.byte_lm import SamplerConfig
from bytropix.byte_lm.generation import Reader, generate
from bytropix.byte_lm.sampling import Sampler
from bytropix.errors import ConfigError
from bytropix.jobs.recipe import choose_device
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.writing import harmless, whole_characters


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Let a trained model write on from a prompt.

    Text is written as it comes and never breaks a UTF-8 character. The same run, prompt, flags and seed give the same
    bytes.
    """

    run: Path
    """The run folder; its latest checkpoint is read."""
    prompt: str = ""
    """What the model goes on from; empty for the start of a document."""
    max_bytes: int = 200
    """Most bytes to write."""
    stop: tuple[str, ...] = ()
    """Strings after which to stop."""
    interactive: bool = False
    """Ask for prompts, one a line, until `quit`, `exit` or the end of input; each starts afresh."""
    sampler: Annotated[SamplerConfig, tyro.conf.OmitArgPrefixes] = field(default_factory=SamplerConfig)
    """How bytes are drawn."""
    device: str = "cpu"
    """cpu has compiled kernels for single bytes; cuda, or auto for a GPU where there is one, is for large models."""
    json: bool = False
    """Print one JSON object instead of the text as it comes."""

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigError(f"--max-bytes must be at least 1, got {self.max_bytes}")
        if self.interactive and (self.json or self.prompt):
            raise ConfigError("--interactive asks for its prompts: leave out --prompt and --json")

    def __call__(self) -> int:
        """Generate and print."""
        writer = Writer(RunFolder(self.run), self)
        if self.interactive:
            for line in _prompts():
                _show(writer(line.encode("utf-8", "surrogateescape")))
            return 0
        prompt = self.prompt.encode("utf-8", "surrogateescape")
        began = time.perf_counter()
        if not self.json:
            print(harmless(self.prompt) if sys.stdout.isatty() else self.prompt, end="")
            _show(writer(prompt))
            return 0
        values = bytes(writer(prompt))
        figures = {
            "prompt": prompt.decode("utf-8", "replace"),
            "text": values.decode("utf-8", "replace"),
            "hex": values.hex(),
            "bytes": len(values),
            "bytes_per_second": len(values) / (time.perf_counter() - began),
            "seed": self.sampler.seed,
        }
        print(json.dumps(figures, ensure_ascii=False))
        return 0


class Writer:
    """A loaded model that writes on from prompts by the flags of a command."""

    def __init__(self, run: RunFolder, flags: Generate) -> None:
        self._flags = flags
        self._context = run.recipe().train.context
        self._model = run.model().to(choose_device(flags.device))
        self._patcher = run.patcher()

    def __call__(self, prompt: bytes) -> Iterator[int]:
        """Yield the bytes written after a prompt, one at a time."""
        reader = Reader(self._model, self._patcher, window=self._context, stride=max(1, self._context // 2))
        reader.feed(prompt)
        stops = [stop.encode("utf-8", "surrogateescape") for stop in self._flags.stop]
        return generate(reader, Sampler(self._flags.sampler), max_bytes=self._flags.max_bytes, stops=stops)


def _show(values: Iterator[int]) -> None:
    """Print bytes as text as they come, and end the line."""
    terminal = sys.stdout.isatty()
    for piece in whole_characters(values):
        print(harmless(piece) if terminal else piece, end="", flush=True)
    print()


def _prompts() -> Iterator[str]:
    """Yield the prompts a person types."""
    while True:
        try:
            line = input("> ")
        except EOFError:
            return
        if line.strip() in ("quit", "exit"):
            return
        yield line
