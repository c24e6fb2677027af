# SPDX-License-Identifier: Apache-2.0
"""The process that keeps machines, and the thin client that talks to it."""
