# SPDX-License-Identifier: Apache-2.0
"""Files as disks: formats, filesystems, archives."""
