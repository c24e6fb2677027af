# SPDX-License-Identifier: Apache-2.0
"""Four ways to give a session a disk of its own over what all share."""
