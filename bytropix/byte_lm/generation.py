"""Going on from a prompt, byte by byte, and scoring given bytes by the same road.

    byte -> online patcher (does the next byte start a patch?) -> session -> log-probabilities of the next byte

A window holds at most `window` bytes. When it is full, a new window begins with its last `window - stride` bytes,
exactly as evaluation slides it, so that scoring bytes one at a time gives the figures of evaluation.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor

from bytropix.byte_lm.sampling import Sampler
from bytropix.patching import Patcher


class Session(Protocol):
    """One window that grows byte by byte."""

    length: int
    log_probs: Tensor

    def push(self, values: list[int], next_starts: list[bool]) -> Tensor:
        """Read bytes; return log-probabilities (n, 256) of the byte after each."""
        ...


class ByteModel(Protocol):
    """What generation needs of a model."""

    def session(self) -> Session:
        """Return an empty window."""
        ...


class Reader:
    """An endless text read through windows of a model.

    Args:
        model: In evaluation mode.
        patcher: The patcher of the store the model was trained on.
        window: Most bytes of a window.
        stride: Bytes by which a full window moves on, at most `window`.

    Attributes:
        history: All bytes read so far.
    """

    def __init__(self, model: ByteModel, patcher: Patcher, *, window: int, stride: int) -> None:
        self._model, self._window, self._stride = model, window, stride
        self._online = patcher.online()
        self._starts: list[bool] = [True]
        self.history = bytearray()
        self._session = model.session()

    @property
    def log_probs(self) -> Tensor:
        """Log-probabilities (256,) of the byte to come, in nats."""
        if self._session.length >= self._window:
            self._slide()
        return self._session.log_probs

    def push(self, value: int) -> None:
        """Read one byte."""
        if self._session.length >= self._window:
            self._slide()
        self._online.push(value)
        self.history.append(value)
        self._starts.append(self._online.next_starts)
        self._session.push([value], [self._starts[-1]])

    def feed(self, values: bytes) -> None:
        """Read many bytes, as much at once as the window allows."""
        for value in values:
            self._online.push(value)
            self._starts.append(self._online.next_starts)
        done = 0
        while done < len(values):
            if self._session.length >= self._window:
                self._slide()
            piece = values[done : done + self._window - self._session.length]
            begin = len(self.history) + 1
            self._session.push(list(piece), self._starts[begin : begin + len(piece)])
            self.history += piece
            done += len(piece)

    def _slide(self) -> None:
        """Begin a new window with the last `window - stride` bytes, its first byte starting a patch."""
        self._session = self._model.session()
        kept = self._window - self._stride
        if kept:
            self._session.push(
                list(self.history[-kept:]), self._starts[len(self.history) - kept + 1 : len(self.history) + 1]
            )


def generate(reader: Reader, sampler: Sampler, *, max_bytes: int, stops: Sequence[bytes] = ()) -> Iterator[int]:
    """Yield up to `max_bytes` new bytes; end after a stop string, of whatever length, is complete among them."""
    begin = len(reader.history)
    ends = tuple(stop for stop in stops if stop)
    longest = max(map(len, ends), default=0)
    for _ in range(max_bytes):
        value = sampler(reader.log_probs, reader.history)
        reader.push(value)
        yield value
        if ends and reader.history[max(begin, len(reader.history) - longest) :].endswith(ends):
            return
