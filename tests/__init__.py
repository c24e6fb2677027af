# SPDX-License-Identifier: Apache-2.0
"""Tests; `tests.conftest` has what they share."""
