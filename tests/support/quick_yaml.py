"""YAML files that tests write and read again and again: ruamel takes a twentieth of a second for each, a tenth of what a whole service takes to start."""

import json

from bridge.yaml12 import load


def read_yaml(path):
    """The plain values of a file."""
    return load(path.read_text("utf-8"))


def write_yaml(path, content):
    """Flow style, one line for each key at the top. JSON but for keys that are numbers, which stay numbers."""
    lines = (
        [_text(content)] if isinstance(content, list) else [f"{_text(key)}: {_text(content[key])}" for key in content]
    )
    path.write_text("\n".join([*lines, ""]), "utf-8")


def _text(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
