"""The n-gram model against a dictionary that counts one byte at a time."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bytropix.datasets.store import Store
from bytropix.jobs.ngram import ORDER, NgramModel


@dataclass
class Documents:
    """What the model needs of a part."""

    texts: list[bytes]

    @property
    def n_bytes(self) -> int:
        """Bytes in all."""
        return sum(map(len, self.texts))

    @property
    def doc_ends(self) -> NDArray[np.int64]:
        """Where each document ends."""
        return np.cumsum([len(text) for text in self.texts]).astype(np.int64)

    def read(self, name: str, start: int, stop: int) -> NDArray[np.uint8]:
        """Return bytes."""
        assert name == "bytes"
        return np.frombuffer(b"".join(self.texts)[start:stop], np.uint8)


Follows = dict[bytes, Counter[int]]


def counted(texts: list[bytes]) -> Follows:
    """Count what follows each context of up to ORDER bytes, within documents."""
    follows: Follows = defaultdict(Counter)
    for text in texts:
        for place, value in enumerate(text):
            for order in range(min(ORDER, place) + 1):
                follows[text[place - order : place]][value] += 1
    return follows


def chance(follows: Follows, before: bytes, value: int) -> float:
    """Return Witten and Bell's interpolated probability, the shortest context first."""
    found = 1 / 256
    for order in range(min(ORDER, len(before)) + 1):
        seen = follows.get(before[len(before) - order :])
        if seen:
            found = (seen[value] + len(seen) * found) / (seen.total() + len(seen))
    return found


def fitted(parts: list[Documents], **limits: int) -> NgramModel:
    """Fit on stand-ins for parts."""
    return NgramModel.fit(parts, **limits)  # type: ignore[arg-type]


few = st.lists(st.lists(st.sampled_from(b"ab\x00\xff"), min_size=1, max_size=25).map(bytes), min_size=1, max_size=4)


@given(few, few)
def test_the_nats_are_those_of_a_dictionary(train: list[bytes], val: list[bytes]) -> None:
    """Sorted keys and searches give what counting by hand gives, documents apart."""
    follows = counted(train)
    wanted = [-math.log(chance(follows, text[:place], text[place])) for text in val for place in range(len(text))]
    held = Documents(val)

    nats = fitted([Documents(train)]).nats(held.read("bytes", 0, held.n_bytes), held.doc_ends)

    np.testing.assert_allclose(nats, wanted, rtol=1e-9)


@given(few, st.binary(max_size=6))
def test_the_chances_of_all_bytes_add_up_to_one(train: list[bytes], before: bytes) -> None:
    """After any context, known or not."""
    model = fitted([Documents(train)])
    rows = [before + bytes([value]) for value in range(256)]
    held = Documents(rows)
    nats = model.nats(held.read("bytes", 0, held.n_bytes), held.doc_ends)

    assert np.exp(-nats[len(before) :: len(before) + 1]).sum() == pytest.approx(1)


def test_a_document_begins_afresh() -> None:
    """What stands before its border does not help."""
    model = fitted([Documents([b"abcabcabc"])])
    apart = model.nats(np.frombuffer(b"abcabc", np.uint8), np.array([3, 6]))

    np.testing.assert_allclose(apart[:3], apart[3:])
    assert model.nats(np.frombuffer(b"abcabc", np.uint8), np.array([6]))[3] < apart[3]


def test_nothing_to_fit_on_leaves_a_uniform_guess() -> None:
    """A store without train documents costs 8 bits a byte."""
    assert fitted([]).bits_per_byte([Documents([b"abc"])]) == pytest.approx(8)  # type: ignore[list-item]


def test_too_many_bytes_are_shared_out_over_the_parts() -> None:
    """Each part gives its share, and the figure says how many bytes were read."""
    parts = [Documents([b"ab" * 50]), Documents([b"cd" * 150])]
    model = fitted(parts, at_most=40)
    wanted = fitted([Documents([b"ab" * 5]), Documents([b"cd" * 15])])

    assert model.fitted_bytes == 40
    assert model.bits_per_byte(parts) == pytest.approx(wanted.bits_per_byte(parts))  # type: ignore[arg-type]


def test_on_a_store_it_is_the_dictionary_too(store: Store) -> None:
    """The real parts, their documents and borders."""
    texts: dict[str, list[bytes]] = {}
    for split in ("train", "val"):
        texts[split] = []
        for part in store.parts(split):
            pieces = np.split(part.read("bytes", 0, part.n_bytes), part.doc_ends[:-1])
            texts[split] += [piece.tobytes() for piece in pieces]
    follows = counted(texts["train"])
    nats = -sum(
        math.log(chance(follows, text[max(0, place - ORDER) : place], text[place]))
        for text in texts["val"]
        for place in range(len(text))
    )
    n_bytes = sum(map(len, texts["val"]))

    found = NgramModel.fit(store.parts("train")).bits_per_byte(store.parts("val"))
    assert found == pytest.approx(nats / math.log(2) / n_bytes)
