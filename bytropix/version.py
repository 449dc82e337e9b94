"""The version, alone in a file that imports nothing, so that building the package runs no other code."""

VERSION = "0.1.0"
