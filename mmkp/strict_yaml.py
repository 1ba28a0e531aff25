"""YAML in which a key that stands twice is a fault; PyYAML lets the last one win."""

from __future__ import annotations

from typing import Any

import yaml


class _Strict(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = next((key for key, _ in node.value if keys.count(key.value) > 1), None)
        if twice is not None:
            line = twice.start_mark.line + 1
            raise yaml.constructor.ConstructorError(None, None, f"{twice.value!r} more than once, first in line {line}")
        return super().construct_mapping(node, deep)


def parse(text: str) -> Any:
    """What a YAML text says.

    Raises:
        yaml.YAMLError: no YAML, or a key that one mapping holds twice.
    """
    return yaml.load(text, _Strict)
