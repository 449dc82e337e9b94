"""Text from a trained model: the run it is read from, the stream it is written to.

run folder -> model + patcher of its store -> prompt -> bytes -> terminal, never half a UTF-8 character
"""

import codecs
from collections.abc import Iterable, Iterator

from bytropix.byte_lm import SamplerConfig
from bytropix.byte_lm.generation import Reader, generate
from bytropix.byte_lm.sampling import Sampler
from bytropix.jobs.recipe import ByteModel
from bytropix.patching import Patcher

_PICTURES = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}


def whole_characters(values: Iterable[int]) -> Iterator[str]:
    """Yield text as soon as its UTF-8 characters are whole; bytes that are no UTF-8 become U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for value in values:
        piece = decoder.decode(bytes([value]))
        if piece:
            yield piece
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


def harmless(text: str) -> str:
    """Return text with control characters, which could move a terminal's cursor or worse, as pictures of themselves."""
    return text.translate(_PICTURES)


def sample_text(model: ByteModel, patcher: Patcher, context: int, n_bytes: int) -> str:
    """Return `n_bytes` that the model writes without a prompt, as text."""
    was_training = model.training
    model.eval()
    reader = Reader(model, patcher, window=context, stride=max(1, context // 2))
    text = "".join(whole_characters(generate(reader, Sampler(SamplerConfig()), max_bytes=n_bytes)))
    model.train(was_training)
    return text
