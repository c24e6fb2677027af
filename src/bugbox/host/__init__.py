# SPDX-License-Identifier: Apache-2.0
"""This Linux host: mechanism only, no policy."""
