"""Batches on their way to the device: the next one is copied while the present one is trained on.

stream -> pinned memory -> side stream, one batch ahead -> the device's own stream -> batch, state behind it
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from typing import Any, Generic, cast

import torch
from torch import Tensor

from bytropix.datasets.resumable import ResumableStream
from bytropix.jobs.task import B

Incoming = Iterator[tuple[B, dict[str, Any]]]


def incoming(stream: ResumableStream[B], device: torch.device) -> Incoming[B]:
    """Yield the batches of a stream on a device, each with the stream's state behind it; close it after use.

    The state is that behind the batch yielded, however far the stream itself is ahead. On a CPU batches pass as they
    are.
    """
    with closing(iter(stream)) as batches:  # type: ignore[type-var]
        if device.type == "cuda":
            yield from _copied_ahead(stream, batches, device)
        else:
            for batch in batches:
                yield batch, stream.state_dict()


def _copied_ahead(stream: ResumableStream[B], batches: Iterator[B], device: torch.device) -> Incoming[B]:
    """Yield each batch after the copy of the next one has been begun."""
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: _Copy[B] | None = None
    for batch in batches:
        following = _Copy(batch, stream.state_dict(), device, side)
        if waiting is not None:
            yield waiting.arrived()
        waiting = following
    if waiting is not None:
        yield waiting.arrived()


class _Copy(Generic[B]):
    """A batch that is being copied; its memory on the host is kept until it has arrived."""

    def __init__(self, batch: B, state: dict[str, Any], device: torch.device, side: torch.cuda.Stream) -> None:
        self._state = state
        self._host = batch.pin_memory()  # itself, where the stream made it there
        with torch.cuda.stream(side):
            self._there = self._host.to(device)
            self._done = side.record_event()

    def arrived(self) -> tuple[B, dict[str, Any]]:
        """Return the batch for the device's own stream, and the state behind it."""
        self._done.synchronize()  # begun a step ago; afterwards the host's memory may be filled anew
        present = torch.cuda.current_stream()
        for field in fields(cast(Any, self._there)):
            tensor = getattr(self._there, field.name)
            if isinstance(tensor, Tensor):
                tensor.record_stream(present)  # its memory is not taken for another copy before it has been read
        return self._there, self._state
