# SPDX-License-Identifier: Apache-2.0
"""One virtual machine, whichever VMM runs it."""
