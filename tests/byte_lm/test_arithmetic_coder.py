"""A real file through an arithmetic coder and back, with the probabilities of the generation path."""

import math
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch

import bytropix
from bytropix.byte_lm.generation import Reader
from bytropix.patching import Patcher

WORD = 48  # bits of the coder's interval
TOP, HALF, QUARTER = 1 << WORD, 1 << (WORD - 1), 1 << (WORD - 2)
TOTAL = 1 << 30  # sum of the whole numbers that stand for probabilities


def whole_numbers(log_probs: torch.Tensor) -> list[int]:
    """Return 257 rising whole numbers from 0 to at most TOTAL + 256: where the share of each byte begins and ends."""
    shares = np.floor(np.exp(log_probs.double().numpy()) * (TOTAL - 256)).astype(np.int64) + 1
    return [0, *accumulate(shares.tolist())]


class Encoder:
    """Bytes to bits, by narrowing an interval of whole numbers (Witten, Neal and Cleary 1987)."""

    def __init__(self) -> None:
        self.bits: list[int] = []
        self._low, self._high, self._pending = 0, TOP - 1, 0

    def put(self, borders: list[int], value: int) -> None:
        """Narrow the interval to the share of `value`."""
        width = self._high - self._low + 1
        self._high = self._low + width * borders[value + 1] // borders[-1] - 1
        self._low += width * borders[value] // borders[-1]
        while True:
            if self._high < HALF:
                self._emit(0)
            elif self._low >= HALF:
                self._emit(1)
                self._low, self._high = self._low - HALF, self._high - HALF
            elif self._low >= QUARTER and self._high < HALF + QUARTER:
                self._pending += 1
                self._low, self._high = self._low - QUARTER, self._high - QUARTER
            else:
                return
            self._low, self._high = 2 * self._low, 2 * self._high + 1

    def finish(self) -> list[int]:
        """Return all bits; those behind them do not matter."""
        self._pending += 1
        self._emit(int(self._low >= QUARTER))
        return self.bits

    def _emit(self, bit: int) -> None:
        self.bits += [bit, *[1 - bit] * self._pending]
        self._pending = 0


class Decoder:
    """Bits back to bytes."""

    def __init__(self, bits: list[int]) -> None:
        self._bits = iter(bits)
        self._low, self._high, self._code = 0, TOP - 1, 0
        for _ in range(WORD):
            self._code = 2 * self._code + next(self._bits, 0)

    def get(self, borders: list[int]) -> int:
        """Return the byte whose share the code lies in."""
        width = self._high - self._low + 1
        wanted = ((self._code - self._low + 1) * borders[-1] - 1) // width
        value = int(np.searchsorted(borders, wanted, side="right")) - 1
        self._high = self._low + width * borders[value + 1] // borders[-1] - 1
        self._low += width * borders[value] // borders[-1]
        while True:
            if self._high < HALF:
                shift = 0
            elif self._low >= HALF:
                shift = HALF
            elif self._low >= QUARTER and self._high < HALF + QUARTER:
                shift = QUARTER
            else:
                return value
            self._low, self._high = 2 * (self._low - shift), 2 * (self._high - shift) + 1
            self._code = 2 * (self._code - shift) + next(self._bits, 0)


@pytest.mark.parametrize("kind", ["wubu", "transformer"])
def test_a_file_comes_back(lab, patchers: dict[str, Patcher], kind: str) -> None:
    """Spec T7, d.8 T11: decoding sees only what it decoded; the code is as long as the sum of nats says, to 0.1 %."""
    model = lab.model(kind, context=128)
    sharpen(model)
    text = Path(bytropix.__file__).read_bytes()[:300] + "海はしずかで 🚢".encode() + lab.noise(100, kind)
    reader = Reader(model, patchers["entropy"], window=128, stride=64)
    encoder, nats = Encoder(), 0.0
    for value in text:
        nats -= float(reader.log_probs[value])
        encoder.put(whole_numbers(reader.log_probs), value)
        reader.push(value)
    bits = encoder.finish()
    reader = Reader(model, patchers["entropy"], window=128, stride=64)
    decoder = Decoder(bits)
    decoded = bytearray()
    while len(decoded) < len(text):
        decoded.append(decoder.get(whole_numbers(reader.log_probs)))
        reader.push(decoded[-1])

    assert text == decoded
    assert abs(len(bits) - nats / math.log(2)) <= 0.001 * len(bits) + 16


def sharpen(model: torch.nn.Module) -> None:
    """Make the predictions of an untrained model far from even, so that a wrong one costs bits."""
    with torch.no_grad():
        model.head.logits.weight.mul_(10)
