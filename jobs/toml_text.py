"""Plain data as TOML text: scalars first, then tables, then arrays of tables."""

import json
from typing import Any


def write_toml(data: dict[str, Any], prefix: str = "") -> str:
    """Return nested dicts, lists and scalars as TOML that `tomllib` reads back to the same data."""
    scalars = {key: value for key, value in data.items() if not _is_table(value)}
    lines = [f"{key} = {_scalar(value)}" for key, value in scalars.items()]
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            lines += ["", f"[{name}]", write_toml(value, f"{name}.")]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{name}]]", write_toml(item, f"{name}.")]
    return "\n".join(lines)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
    )


def _scalar(value: object) -> str:
    """JSON and TOML write strings, numbers, booleans and flat lists of these alike, DEL apart."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
