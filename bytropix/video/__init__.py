"""WuBuNestDiffusion: video diffusion conditioned on nested hyperbolic stacks over regions, motion and time."""
