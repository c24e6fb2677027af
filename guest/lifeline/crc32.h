/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 as zlib computes it (IEEE 802.3, reflected). */
#ifndef CRC32_H
#define CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 at the start) over `size` bytes. */
uint32_t crc32_add(uint32_t crc, const void *data, size_t size);

#endif
