"""The sizes of the two byte models, as frozen dataclasses: a TOML recipe and the flags are views of these fields."""

from dataclasses import dataclass, field
from typing import Literal

from bytropix.errors import ConfigError
from bytropix.nesting import NestingConfig


def _check_heads(name: str, width: int, heads: int) -> None:
    """Refuse a width that the heads do not divide into even parts (rotary positions turn pairs of features)."""
    if heads < 1 or width % (2 * heads):
        raise ConfigError(f"{name}.width {width} must be a multiple of 2 * heads, got heads {heads}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalConfig:
    """A stack of layers over bytes: the local encoder or the byte decoder."""

    width: int = 96
    """Features per byte."""
    layers: int = 1
    """Number of layers."""
    heads: int = 4
    """Attention heads; 2 * heads must divide the width."""

    def __post_init__(self) -> None:
        _check_heads("local", self.width, self.heads)
        if self.layers < 1:
            raise ConfigError(f"local.layers must be at least 1, got {self.layers}")


@dataclass(frozen=True, kw_only=True, slots=True)
class NgramConfig:
    """Hashed n-gram embeddings, added to each byte for the n-gram that ends at it."""

    sizes: tuple[int, ...] = (3, 4)
    """Lengths n, each from 2 to 8; empty for none."""
    rows: int = 4096
    """Rows of each table; a 64-bit hash of the n bytes picks one."""

    def __post_init__(self) -> None:
        for size in self.sizes:
            if not 2 <= size <= 8:
                raise ConfigError(f"ngram.sizes must lie between 2 and 8, got {size}")
        if self.rows < 1:
            raise ConfigError(f"ngram.rows must be at least 1, got {self.rows}")


@dataclass(frozen=True, kw_only=True, slots=True)
class MixerConfig:
    """The causal transformer over patches, in front of the nesting stack."""

    width: int = 192
    """Features per patch; also the width of the decoder's memory."""
    layers: int = 3
    """Number of layers; 0 leaves all mixing to the nesting levels."""
    heads: int = 4
    """Attention heads; 2 * heads must divide the width."""

    def __post_init__(self) -> None:
        _check_heads("mixer", self.width, self.heads)
        if self.layers < 0:
            raise ConfigError(f"mixer.layers must not be negative, got {self.layers}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WuBuConfig:
    """The WuBu byte language model: bytes -> patches -> nested balls -> bytes."""

    encoder: LocalConfig = field(default_factory=LocalConfig)
    """The causal layers over bytes that patches are pooled from."""
    ngram: NgramConfig = field(default_factory=NgramConfig)
    """Hashed n-gram embeddings of the encoder."""
    mixer: MixerConfig = field(default_factory=MixerConfig)
    """The causal transformer over patches."""
    nesting: NestingConfig = field(default_factory=NestingConfig)
    """The nested hyperbolic levels; one table per level."""
    decoder: LocalConfig = field(default_factory=lambda: LocalConfig(layers=2))
    """The causal layers over bytes that attend to closed patches."""
    head: Literal["two_stage", "flat"] = "two_stage"
    """two_stage: the high nibble, then the low nibble given it; flat: one softmax over 256 bytes."""
    dropout: float = 0.0
    """Share of features dropped after each residual branch in training."""

    def __post_init__(self) -> None:
        if self.encoder.width != self.decoder.width:
            raise ConfigError(
                f"encoder.width {self.encoder.width} and decoder.width {self.decoder.width} must be equal: "
                "the decoder reads the encoder's byte states"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ByteTransformerConfig:
    """The yardstick: a plain causal byte transformer (pre-RMSNorm, RoPE, SwiGLU, QK-norm)."""

    width: int = 192
    """Features per byte."""
    layers: int = 6
    """Number of layers."""
    heads: int = 4
    """Attention heads; 2 * heads must divide the width."""
    head: Literal["two_stage", "flat"] = "flat"
    """two_stage: the high nibble, then the low nibble given it; flat: one softmax over 256 bytes."""
    dropout: float = 0.0
    """Share of features dropped after each residual branch in training."""

    def __post_init__(self) -> None:
        _check_heads("transformer", self.width, self.heads)
        if self.layers < 1:
            raise ConfigError(f"transformer.layers must be at least 1, got {self.layers}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {self.dropout}")
