"""The commands of the command line, one file each: a frozen dataclass whose fields are the flags."""
