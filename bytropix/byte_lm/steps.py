"""The byte models for one position at a time: their modules' weights, handed to compiled kernels.

    byte -> EncoderStep -> state -> PoolStep (when a patch ends) -> BlockSteps of the mixer -> nesting -> slot
    state, slots -> DecoderStep -> HeadStep -> log-probabilities

A step holds views of the weights, so it is made in no time, and follows them when they are trained in place. Vectors
are arrays (D,) of float32. Whatever a step does, the module it was made of does for chunks of positions; the caches
are shared. Kernels do not drop out: models are in evaluation mode.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bytropix.byte_lm import single
from bytropix.byte_lm.decoder import ByteDecoder
from bytropix.byte_lm.encoder import LocalEncoder, NgramEmbedding
from bytropix.byte_lm.heads import FlatHead, Head, TwoStageHead
from bytropix.byte_lm.layers import Block, CrossAttention, KeyValueCache, RMSNorm, Rotary
from bytropix.kernels import Cube, Matrix, Vector, array, product


def fits(weight: Tensor) -> bool:
    """Whether a model with this weight can go in steps: on a CPU, in float32."""
    return weight.dtype is torch.float32 and weight.device.type == "cpu"


class BlockSteps:
    """Some `Block`s one after the other, and the norm behind them."""

    def __init__(self, blocks: Iterable[nn.Module], rotary: Rotary, norm: RMSNorm) -> None:
        self._weights = [_weights_of(block) for block in blocks if isinstance(block, Block)]
        self._turns: Cube = array(rotary.table)[:, 0]
        self._gain: Vector = array(norm.weight)
        head_width = 2 * self._turns.shape[1]
        self._like_1H1E = torch.empty(1, self._gain.size // head_width, 1, head_width)

    def __call__(self, x: Vector, caches: list[KeyValueCache]) -> Vector:
        """Return the features after all blocks and the norm."""
        for index, cache in enumerate(caches):
            x = self.block(index, x, cache)
        return self.norm(x)

    def block(self, index: int, x: Vector, cache: KeyValueCache) -> Vector:
        """Return the features after one block; its key and value join the cache."""
        keys, values, position = cache.claim(self._like_1H1E)
        return single.block(x, *self._weights[index], self._turns[position], keys, values, position)

    def norm(self, x: Vector) -> Vector:
        """Return the features after the norm."""
        return single.rms_norm(x, self._gain)


class EncoderStep:
    """A `LocalEncoder`: bytes one by one, and the vector of a patch once it has ended."""

    def __init__(self, encoder: LocalEncoder) -> None:
        ngrams = _ngrams_of(encoder.ngrams, width=encoder.bytes.embedding_dim)
        self._tables = array(encoder.bytes.weight), array(encoder.places.weight), *ngrams
        self._blocks = BlockSteps(encoder.blocks, encoder.rotary, encoder.norm)
        pool = encoder.pool
        gain = pool.query_norm.weight
        asking = array(pool.query.weight), array(gain)
        self._pool = *asking, array(pool.key_value.weight), array(torch.ones_like(gain)), array(pool.out.weight)
        self._to_patch: Matrix = array(encoder.to_patch.weight)

    def __call__(self, nearest: bytes, place: int, caches: list[KeyValueCache]) -> Vector:
        """Return the state of a byte.

        Args:
            nearest: The byte and the REACH bytes before it.
            place: Of the byte in its patch.
            caches: One per block.
        """
        x = single.embed(np.frombuffer(nearest, np.uint8), place, *self._tables)
        return self._blocks(x, caches)

    def patch_vector(self, states: Matrix) -> Vector:
        """Return the vector (M,) of a patch from the states (T, D) of its bytes."""
        return product(self._to_patch, single.pool(states, *self._pool))


class DecoderStep:
    """A `ByteDecoder` for one index, where all slots are visible."""

    def __init__(self, decoder: ByteDecoder) -> None:
        self._places: Matrix = array(decoder.places.weight)
        self._fresh: Matrix = array(decoder.fresh.weight)
        self._blocks = BlockSteps(decoder.blocks, decoder.rotary, decoder.norm)
        self._turns: Cube = array(decoder.rotary.table)[:, 0]
        reads = [read for read in decoder.reads if isinstance(read, CrossAttention)]
        norms = [norm for norm in decoder.read_norms if isinstance(norm, RMSNorm)]
        self._reads = [
            (array(norm.weight), array(read.query.weight), array(read.query_norm.weight), array(read.out.weight))
            for norm, read in zip(norms, reads, strict=True)
        ]
        width = reads[0].query_norm.weight.shape[0]
        self._like_1H1E = torch.empty(1, reads[0].heads, 1, width)
        self._ones: Vector = np.ones(width, np.float32)
        self._key_values = [array(read.key_value.weight) for read in reads]

    def __call__(
        self, before: Vector, place: int, fresh: Vector, slots: list[KeyValueCache], caches: list[KeyValueCache]
    ) -> Vector:
        """Return the predicting state.

        Args:
            before: State of the byte before.
            place: Of the byte to predict in its patch.
            fresh: What the freshest slot adds.
            slots: Keys and values of the slots, one cache per layer.
            caches: One per layer.
        """
        x: Vector = before + self._places[min(place, self._places.shape[0] - 1)] + fresh
        turn = self._turns[slots[0].length - 1]
        for index, (memory, cache) in enumerate(zip(slots, caches, strict=True)):
            x = single.read(x, *self._reads[index], turn, *memory.arrays(), memory.length)
            x = self._blocks.block(index, x, cache)
        return self._blocks.norm(x)

    def add_slot(self, memory: Vector, slots: list[KeyValueCache]) -> Vector:
        """Put the keys and values of a memory vector (M,) into `slots`; return what it adds where it is freshest."""
        for key_value, cache in zip(self._key_values, slots, strict=True):
            keys, values, position = cache.claim(self._like_1H1E)
            single.slot(memory, key_value, self._ones, self._turns[position], keys, values, position)
        return product(self._fresh, memory)


class HeadStep:
    """A head: a state (D,) to log-probabilities (256,)."""

    def __init__(self, head: Head) -> None:
        assert isinstance(head, TwoStageHead | FlatHead)
        self._kernel = single.two_stage if isinstance(head, TwoStageHead) else single.flat
        self._weights = array(head.logits.weight), array(head.logits.bias)

    def __call__(self, state: Vector) -> Tensor:
        """Return the log-probabilities (256,) of the next byte."""
        return torch.from_numpy(self._kernel(state, *self._weights))


def _weights_of(block: Block) -> tuple[Vector, Matrix, Vector, Matrix, Vector, Matrix, Matrix]:
    """Return the weights of a block in the order of its kernel."""
    attention, feed = block.attention, block.feed
    return (
        array(block.attention_norm.weight),
        array(attention.qkv.weight),
        array(attention.qk_norm.weight),
        array(attention.out.weight),
        array(block.feed_norm.weight),
        array(feed.gate_up.weight),
        array(feed.down.weight),
    )


def _ngrams_of(
    ngrams: NgramEmbedding | None, *, width: int
) -> tuple[Matrix, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int]:
    """Return the n-gram table and how to find its rows, in the order of the kernel; all empty without n-grams."""
    if ngrams is None:
        none = np.empty(0, np.int64)
        return np.empty((0, width), np.float32), none, none, none, 1
    masks, salts, offsets = ngrams.masks_N.numpy(), ngrams.salts_N.numpy(), ngrams.offsets_N.numpy()
    return array(ngrams.table.weight), masks, salts, offsets, ngrams.rows
