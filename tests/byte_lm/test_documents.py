"""Several documents in a row: each is read as if it lay in a row by itself."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from bytropix.byte_lm.documents import Borders
from bytropix.byte_lm.patches import lay_out
from bytropix.nesting import LevelConfig, NestingConfig

KINDS = ["wubu", "transformer"]
LENGTHS = (23, 1, 40, 2, 17)
PADDING = 14


@dataclass
class Row:
    """A batch of one row, and where its documents begin."""

    values: Tensor
    starts: Tensor
    documents: Tensor
    begins: list[int]

    def nats(self, model: torch.nn.Module, values: Tensor | None = None) -> Tensor:
        """Return the nats (T,) of a model for these bytes, or for others in their places."""
        with torch.no_grad():
            read = self.values if values is None else values
            return model.nats(read, self.starts, self.values.shape[1], self.documents)[0]


def pack(lengths: tuple[int, ...], padding: int, seed: int) -> Row:
    """Return random documents of some lengths with random patches, and zeros behind them."""
    draws = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    values = torch.randint(1, 256, (1, total + padding), generator=draws, dtype=torch.uint8)
    starts = torch.rand(1, total + padding, generator=draws) < 0.3
    documents = torch.zeros(1, total + padding, dtype=torch.int16)
    begins = [sum(lengths[:number]) for number in range(len(lengths))]
    for number, (begin, length) in enumerate(zip(begins, lengths, strict=True), 1):
        documents[0, begin : begin + length] = number
    starts[0, begins] = True
    values[0, total:], starts[0, total:] = 0, False
    return Row(values, starts, documents, begins)


@pytest.fixture(scope="module")
def row() -> Row:
    """Five documents, one of a single byte, and padding."""
    return pack(LENGTHS, PADDING, seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_documents_see_nothing_of_each_other(lab, row: Row, kind: str) -> None:
    """Other bytes in one document or the padding: the others' nats stay bit by bit as they were, before and behind."""
    model = lab.model(kind)
    before = row.nats(model)
    for begin, length in zip([*row.begins, sum(LENGTHS)], [*LENGTHS, PADDING], strict=True):
        values = row.values.clone()
        values[0, begin : begin + length] ^= 0x55
        after = row.nats(model, values)

        own = torch.zeros(before.shape, dtype=torch.bool)
        own[begin : begin + length] = True
        assert torch.equal(before[~own], after[~own])
        assert not torch.allclose(before[own], after[own], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_is_read_as_if_alone(lab, row: Row, kind: str) -> None:
    """Wherever it lies in a row, and whatever is in front: the same nats but for rounding."""
    model = lab.model(kind)
    packed = row.nats(model)
    for begin, length in zip(row.begins, LENGTHS, strict=True):
        own = slice(begin, begin + length)
        with torch.no_grad():
            alone = model.nats(row.values[:, own], row.starts[:, own], length)[0]

        torch.testing.assert_close(packed[own], alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_a_far_document_is_read_as_if_alone(lab, kind: str) -> None:
    """Hundreds of bytes and patches further on: slots count from their own document, masks hold block by block."""
    model = lab.model(kind, context=1400)
    row = pack((1100, 150), 90, seed=2)
    own = slice(1100, 1250)
    with torch.no_grad():
        alone = model.nats(row.values[:, own], row.starts[:, own], 150)[0]

    torch.testing.assert_close(row.nats(model)[own], alone, atol=1e-4, rtol=1e-4)


def test_levels_without_fixed_points_keep_to_documents(lab, row: Row) -> None:
    """Where patches attend to patches alone, the first of a document finds itself and nothing else."""
    bare = LevelConfig(dim=8, boundary_points=0, descriptor=False, relative="none")
    model = lab.wubu(nesting=NestingConfig(levels=(bare,), dropout=0.0))
    own = slice(row.begins[2], row.begins[3])
    with torch.no_grad():
        alone = model.nats(row.values[:, own], row.starts[:, own], LENGTHS[2])[0]

    torch.testing.assert_close(row.nats(model)[own], alone, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_document_is_a_plain_row(lab, kind: str) -> None:
    """A row of one document gives what it gives without documents."""
    model = lab.model(kind)
    row = pack((90,), 0, seed=3)
    with torch.no_grad():
        plain = model.nats(row.values, row.starts, 90)[0]

    torch.testing.assert_close(row.nats(model), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_later_in_a_document_changes_what_is_before(lab, row: Row, kind: str) -> None:
    """Bytes from t on are replaced, in all documents: log-probabilities up to t are the same bit by bit."""
    model = lab.model(kind)
    total = row.values.shape[1]
    with torch.no_grad():
        before = model(row.values, row.starts, total, row.documents)[0]
        for t in range(0, sum(LENGTHS), 3):
            values = row.values.clone()
            values[0, t:] ^= 0x33
            after = model(values, row.starts, total, row.documents)[0]
            assert torch.equal(before[: t + 1], after[: t + 1])


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_empty_rows_leave_gradients_finite(lab, row: Row, kind: str) -> None:
    """Every value is finite, of padding and of a row that holds nothing too, and so is every gradient."""
    model = lab.model(kind)
    values = torch.cat([row.values, torch.zeros_like(row.values)])
    starts = torch.cat([row.starts, torch.zeros_like(row.starts)])
    starts[1, 0] = True
    documents = torch.cat([row.documents, torch.zeros_like(row.documents)])
    nats = model.nats(values, starts, int(starts[:, :-1].sum(1).max()), documents)
    torch.where(documents > 0, nats, 0).sum().backward()

    assert nats.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_documents_apart(lab, row: Row, kind: str) -> None:
    """The loss of a packed row teaches what the losses of its documents, each in a row of its own, teach together."""
    model = lab.model(kind)
    packed = model.nats(row.values, row.starts, row.values.shape[1], row.documents)
    torch.where(row.documents > 0, packed, 0).sum().backward()
    together = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for begin, length in zip(row.begins, LENGTHS, strict=True):
        own = slice(begin, begin + length)
        model.nats(row.values[:, own], row.starts[:, own], length).sum().backward()

    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(together[name], p.grad, atol=2e-4, rtol=1e-3, msg=name)


def test_borders_of_documents() -> None:
    """Where documents open, how deep a byte lies in its own, and whom it may read."""
    borders = Borders.of(torch.tensor([[1, 1, 2, 3, 3, 0]], dtype=torch.int16))

    assert borders.opens_BT.tolist() == [[True, False, True, True, False, True]]
    assert borders.depth_BT.tolist() == [[0, 1, 0, 0, 1, 0]]
    assert borders.visible_BTT[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_slots_and_patches_count_from_their_document() -> None:
    """Two documents of two patches each, a third of one, and padding, which lies in the last patch."""
    starts = torch.tensor([[1, 0, 1, 1, 1, 0, 1, 0]], dtype=torch.bool)
    borders = Borders.of(torch.tensor([[1, 1, 1, 2, 2, 2, 3, 0]]))
    layout = lay_out(starts, 5, borders)

    assert layout.freshest_BT.tolist() == [[0, 0, 1, 0, 3, 3, 0, 0]]
    assert layout.number_BT.tolist() == [[0, 0, 1, 0, 1, 1, 0, 0]]
    assert layout.number_BS is not None
    assert layout.number_BS[0, :5].tolist() == [0, 1, 2, 1, 2]
    assert [row.nonzero().flatten().tolist() for row in layout.visible_BTS[0]] == [
        [0],
        [0],
        [0, 1],
        [0],
        [0, 3],
        [0, 3],
        [0],
        [0],
    ]
    assert layout.visible_BPP is not None
    assert layout.visible_BPP[0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 1],
    ]
