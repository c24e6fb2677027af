# SPDX-License-Identifier: Apache-2.0
"""bugbox schema: puzzle.yaml's JSON Schema, for editors."""

from __future__ import annotations

from bugbox.cli.out import document
from bugbox.puzzle.schema import schema as of_manifest

__all__ = ["schema"]


def schema() -> int:
    """Print the JSON Schema of puzzle.yaml."""
    document(of_manifest())
    return 0
