"""Reading and writing text without end, through windows that slide as evaluation's do."""

import pytest
import torch

from bytropix.byte_lm import SamplerConfig
from bytropix.byte_lm.generation import Reader, generate
from bytropix.byte_lm.sampling import Sampler
from bytropix.jobs.evaluation import document_nats
from bytropix.patching import Patcher

KINDS = pytest.mark.parametrize("kind", ["wubu", "transformer"])


def nats_by_reading(reader: Reader, document: bytes) -> torch.Tensor:
    """Return -ln p of every byte, each taken before the reader sees it."""
    nats = []
    for value in document:
        nats.append(-float(reader.log_probs[value]))
        reader.push(value)
    return torch.tensor(nats)


@KINDS
@pytest.mark.parametrize(("window", "stride"), [(40, 20), (40, 40), (33, 7), (200, 1)])
def test_reading_equals_evaluation(lab, patchers: dict[str, Patcher], kind: str, window: int, stride: int) -> None:
    """Bytes read one at a time have the nats of evaluation's windows, whatever the place of the document's end."""
    model = lab.model(kind, context=window)
    document = lab.texts(95)["utf8"] + lab.texts(50)["binary"]
    expected = document_nats(model, patchers["entropy"], torch.tensor(list(document), dtype=torch.uint8).numpy(),
                             context=window, stride=stride)  # fmt: skip
    read = nats_by_reading(Reader(model, patchers["entropy"], window=window, stride=stride), document)

    torch.testing.assert_close(read, torch.from_numpy(expected), atol=2e-5, rtol=0)


@KINDS
def test_feeding_equals_pushing(lab, patchers: dict[str, Patcher], kind: str) -> None:
    """A text fed in pieces of any size leaves the reader where pushing its bytes does."""
    model = lab.model(kind, context=40)
    document = lab.texts(137)["utf8"]
    pushed = Reader(model, patchers["entropy"], window=40, stride=15)
    for value in document:
        pushed.push(value)
    for pieces in ([137], [1, 39, 1, 96], [40, 40, 40, 17], [0, 55, 0, 55, 27]):
        fed = Reader(model, patchers["entropy"], window=40, stride=15)
        begin = 0
        for size in pieces:
            fed.feed(document[begin : begin + size])
            begin += size

        assert fed.history == pushed.history == document
        torch.testing.assert_close(fed.log_probs, pushed.log_probs, atol=1e-5, rtol=0)


class Dictation:
    """A sampler that says what it was given."""

    def __init__(self, text: bytes) -> None:
        self._values = iter(text)

    def __call__(self, log_probs: torch.Tensor, recent: bytearray) -> int:
        """Return the next byte of the text."""
        return next(self._values)


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        ([], 200),
        ([b"", b"zz"], 200),
        ([b"\na"], 200),
        ([b"\n\n"], 52),
        ([b"x", b"b\n"], 51),
        ([b"a" * 30 + b"b" * 20 + b"\n\n" + b"c" * 30], 82),
        ([b"a" * 31], 200),
    ],
)
def test_stop_strings(lab, patchers: dict[str, Patcher], stops: list[bytes], expected: int) -> None:
    """Writing ends when a stop string of any length is complete; the prompt is no part of it."""
    text = (b"a" * 30 + b"b" * 20 + b"\n\n" + b"c" * 30).ljust(200, b".")
    reader = Reader(lab.transformer(), patchers["fixed"], window=100, stride=50)
    reader.feed(b"aaaa\n")

    assert text[:expected] == bytes(generate(reader, Dictation(text), max_bytes=200, stops=stops))


@KINDS
def test_same_seed_same_bytes(lab, patchers: dict[str, Patcher], kind: str) -> None:
    """Model, prompt, settings and seed decide the text, through several windows; another seed writes another."""

    def written(seed: int) -> bytes:
        reader = Reader(lab.model(kind, context=30), patchers["words"], window=30, stride=10)
        reader.feed(b"once ")
        sampler = Sampler(SamplerConfig(temperature=1.0, adaptive=True, repetition_penalty=1.2, seed=seed))
        return bytes(generate(reader, sampler, max_bytes=60))

    assert written(1) == written(1)
    assert written(1) != written(2)
