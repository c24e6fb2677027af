# SPDX-License-Identifier: Apache-2.0
"""What we teach with."""
