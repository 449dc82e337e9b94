"""Golden aspect adaptive decomposition: regions of a frame by golden cuts and spirals, motion regions, sampling."""
