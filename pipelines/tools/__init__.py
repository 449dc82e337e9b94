"""What is done to stores that are finished: verify, repair, convert, repatch."""
