"""Video decoders, each behind one interface, in a process of their own."""
