"""From videos to stores of clips with region maps."""
