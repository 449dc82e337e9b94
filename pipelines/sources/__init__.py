"""Where documents come from: one file per kind of source."""

from bytropix.pipelines.sources.files import SourceFile, find_files

__all__ = ["SourceFile", "find_files"]
