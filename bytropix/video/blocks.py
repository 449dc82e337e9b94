"""The block of the denoiser: a transformer layer that time and place modulate, with the context and neighbours in view.

    x -> + gate * self-attention(modulated norm x), over all tokens of all frames
      -> + cross-attention(norm x) to the context, where there is one
      -> + gate * feed-forward(modulated norm x), with a 3 x 3 convolution inside

Modulation is adaLN-zero (Peebles and Xie 2023): shift, scale and gate of each frame are made from the embedding of its
timestep and place, and all begin near zero, so a new block passes its input on. Cross-attention begins near zero too.
The convolution in the feed-forward part (Xie et al. 2025, "SANA") shows a cell its neighbours, which attention
would have to learn.

Shapes: B batch, P frames, h x w grid of tokens, N = P h w, K context tokens, D width, H heads, E head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bytropix.video.config import DenoiserConfig
from bytropix.video.context import ContextTokens

SMALL = 0.02  # of the usual size of a weight


def modulated(x_BPhwD: Tensor, shift_BPD: Tensor, scale_BPD: Tensor) -> Tensor:
    """Return the layer norm of x, shifted and scaled frame by frame."""
    normed = F.layer_norm(x_BPhwD, x_BPhwD.shape[-1:])
    return torch.addcmul(shift_BPD[:, :, None, None], normed, 1 + scale_BPD[:, :, None, None])


def small_linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a map to nearly zero: through a true zero no gradient reaches what lies before, for the first steps."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=SMALL * inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """Attention of tokens to each other, or to a memory, with layer-normalized queries and keys (Dehghani et al. 2023).

    Args:
        width: D.
        heads: H.
        memory_width: Width of the memory; `None` for self-attention.
    """

    def __init__(self, width: int, heads: int, memory_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(memory_width or width, 2 * width)
        self.query_norm = nn.LayerNorm(width // heads, bias=False)
        self.key_norm = nn.LayerNorm(width // heads, elementwise_affine=False)  # one gain: only its product counts
        self.out = nn.Linear(width, width) if memory_width is None else small_linear(width, width)

    def forward(self, x_BND: Tensor, memory_BKM: Tensor, visible_BK: Tensor | None = None) -> Tensor:
        """Return what each token reads of the visible memory, [B, N, D]."""
        batch, count, width = x_BND.shape
        q = self.query_norm(self.query(x_BND).view(batch, count, self.heads, -1))
        k, v = self.key_value(memory_BKM).view(batch, memory_BKM.shape[1], 2 * self.heads, -1).chunk(2, dim=2)
        k = self.key_norm(k)
        mask = None if visible_BK is None else visible_BK[:, None, None]
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2).to(q.dtype), attn_mask=mask
        )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, count, width))
        return out


class FeedForward(nn.Module):
    """Linear, 3 x 3 convolution of each channel by itself, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x_BPhwD: Tensor) -> Tensor:
        """Return the features of each token, made of it and of the eight around it in its frame."""
        hidden = self.up(x_BPhwD)
        maps = hidden.flatten(0, 1).permute(0, 3, 1, 2)  # channels last: no copy
        near = self.near(maps).permute(0, 2, 3, 1).reshape(hidden.shape)
        out: Tensor = self.down(F.gelu(near))
        return out


class Block(nn.Module):
    """One layer.

    Args:
        config: Sizes.
        context_width: Width of the context's tokens; `None` for a layer without cross-attention.
    """

    def __init__(self, config: DenoiserConfig, context_width: int | None) -> None:
        super().__init__()
        width = config.width
        self.modulation = small_linear(width, 6 * width)
        self.attention = Attention(width, config.heads)
        self.cross = None if context_width is None else Attention(width, config.heads, context_width)
        self.feed = FeedForward(width, round(width * config.ffn_ratio))
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x_BPhwD: Tensor, condition_BPD: Tensor, context: ContextTokens | None) -> Tensor:
        """Return the tokens after this layer."""
        shift, scale, gate, feed_shift, feed_scale, feed_gate = self.modulation(condition_BPD).chunk(6, dim=-1)
        tokens_BND = modulated(x_BPhwD, shift, scale).flatten(1, 3)
        read = self.attention(tokens_BND, tokens_BND).view(x_BPhwD.shape)
        x_BPhwD = x_BPhwD + gate[:, :, None, None] * self.drop(read)
        if self.cross is not None and context is not None:
            tokens_BND = F.layer_norm(x_BPhwD, x_BPhwD.shape[-1:]).flatten(1, 3)
            read = self.cross(tokens_BND, context.tokens, context.visible)
            x_BPhwD = x_BPhwD + self.drop(read).view(x_BPhwD.shape)
        fed = self.feed(modulated(x_BPhwD, feed_shift, feed_scale))
        out: Tensor = x_BPhwD + feed_gate[:, :, None, None] * self.drop(fed)
        return out
