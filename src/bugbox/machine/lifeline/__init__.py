# SPDX-License-Identifier: Apache-2.0
"""The host's half of the lifeline protocol (guest/PROTOCOL.md)."""
