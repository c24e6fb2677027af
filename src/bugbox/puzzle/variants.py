# SPDX-License-Identifier: Apache-2.0
"""Values that differ from session to session, filled into texts as `{{NAME}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["fill", "names"]

_NAME = re.compile(r"\{\{([A-Z][A-Z0-9_]*)\}\}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each `{{NAME}}` that has a value; leave the others as they stand."""
    return _NAME.sub(lambda match: values.get(match[1], match[0]), text)


def names(text: str) -> list[tuple[str, int]]:
    """Return each `{{NAME}}` of the text, with the offset it stands at."""
    return [(match[1], match.start()) for match in _NAME.finditer(text)]
