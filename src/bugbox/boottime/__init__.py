# SPDX-License-Identifier: Apache-2.0
"""Where a boot's time went and why: text in, values and pictures out, no machine touched."""
