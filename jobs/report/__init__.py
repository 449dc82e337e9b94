"""A store as one web page: what is in it, how it is cut, and passages to look at."""

from bytropix.jobs.report.page import render, write_page
from bytropix.jobs.report.passages import Passage, characters, choose_passages

__all__ = ["Passage", "characters", "choose_passages", "render", "write_page"]
