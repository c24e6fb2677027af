# SPDX-License-Identifier: Apache-2.0
"""The promises in numbers, each beside what a user would pick instead: `make bench`."""
