"""The byte language model: local encoder, patch mixer, WuBu nesting, byte decoder, heads, cached generation."""

from bytropix.byte_lm.config import ByteTransformerConfig, WuBuConfig
from bytropix.byte_lm.model import WuBuByteLM
from bytropix.byte_lm.sampling import SamplerConfig
from bytropix.byte_lm.transformer import ByteTransformer

MODELS = {"wubu": WuBuByteLM, "transformer": ByteTransformer}

__all__ = [
    "MODELS",
    "ByteTransformer",
    "ByteTransformerConfig",
    "SamplerConfig",
    "WuBuByteLM",
    "WuBuConfig",
]
