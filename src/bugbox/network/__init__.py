# SPDX-License-Identifier: Apache-2.0
"""Wires: what a machine's network card is plugged into, and what it may reach."""
