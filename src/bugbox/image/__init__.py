# SPDX-License-Identifier: Apache-2.0
"""Operating systems on disk: base images, kernels, initramfs."""
