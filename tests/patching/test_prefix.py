"""No rule looks ahead: the patches of a prefix are the patches of the whole before its end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytropix.patching import RULES, Patcher, RuleName

documents = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(str.encode),
    st.text(alphabet="ab, .\n\0é\u3042\U0001f600", max_size=150).map(str.encode),
    st.lists(st.sampled_from([b"\xf0", b"\xe3\x81", b"\xff" * 20, b" ", b"word", b"\0" * 30]), max_size=30).map(
        b"".join
    ),
)
quick = settings(deadline=None, max_examples=60, derandomize=True)


@pytest.mark.parametrize("rule", RULES)
@quick
@given(document=documents, data=st.data())
def test_prefix_has_the_patches_of_the_whole(
    patchers: dict[str, Patcher], rule: RuleName, document: bytes, data: st.DataObject
) -> None:
    """Cutting a document short changes no entropy and no start before the cut."""
    stop = data.draw(st.integers(0, len(document)))
    entropy, starts = patchers[rule](document)
    entropy_before, starts_before = patchers[rule](document[:stop])

    assert entropy[:stop].tolist() == entropy_before.tolist()
    assert starts[:stop].tolist() == starts_before.tolist()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("stop", range(40))
def test_class_of_the_next_byte_does_not_leak(patchers: dict[str, Patcher], rule: RuleName, stop: int) -> None:
    """A letter, a space, a lead byte or 0xFF at `stop` changes no entropy or start up to `stop` itself."""
    head = "she sold, at last: ship 7 \u3042\u3044 home; and".encode()[:stop]
    seen = [patchers[rule](head + tail * 8) for tail in (b"a", b" ", b"\xe3", b"\xff", b".")]

    assert len({entropy[: stop + 1].tobytes() for entropy, _ in seen}) == 1
    assert len({starts[: stop + 1].tobytes() for _, starts in seen}) == 1


@pytest.mark.parametrize("rule", RULES)
def test_document_knows_nothing_of_its_neighbours(patchers: dict[str, Patcher], rule: RuleName) -> None:
    """Documents laid end to end are patched as each would be alone, empty ones included."""
    pieces = [b"the town, ", b"", b"\xe3", b"\x81\x82 over", b" ", b"of grey cloth" * 9, b""]
    ends = np.cumsum([len(piece) for piece in pieces])
    alone = [patchers[rule](piece) for piece in pieces]
    entropy, starts = patchers[rule].patch(np.frombuffer(b"".join(pieces), dtype=np.uint8), ends)

    assert np.concatenate([part for part, _ in alone]).tolist() == entropy.tolist()
    assert np.concatenate([part for _, part in alone]).tolist() == starts.tolist()
