# SPDX-License-Identifier: Apache-2.0
"""Linux debugging puzzles in real, disposable, fast-booting virtual machines."""

__version__ = "0.1.0"
