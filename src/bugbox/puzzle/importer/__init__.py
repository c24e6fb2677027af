# SPDX-License-Identifier: Apache-2.0
"""Puzzles made from scenarios that were written for something else."""
