/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CRC-32, four bytes a step: under software emulation one byte a step is what a file transfer
 * would spend most of its time on.
 */
#include "crc32.h"

#include <stdbool.h>

enum { STEP = 4, POLYNOMIAL_BITS = 8 };

static const uint32_t polynomial = 0xEDB88320u;
static uint32_t table[STEP][256];
static bool filled;

static void fill(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < POLYNOMIAL_BITS; bit++)
            value = (value >> 1) ^ (value & 1 ? polynomial : 0);
        table[0][byte] = value;
    }
    for (int row = 1; row < STEP; row++)
        for (int byte = 0; byte < 256; byte++)
            table[row][byte] = (table[row - 1][byte] >> 8) ^ table[0][table[row - 1][byte] & 0xff];
    filled = true;
}

uint32_t crc32_add(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *byte = data;

    if (!filled)
        fill();
    crc = ~crc;
    for (; size >= STEP; size -= STEP, byte += STEP) {
        crc ^= (uint32_t)byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 |
               (uint32_t)byte[3] << 24;
        crc = table[3][crc & 0xff] ^ table[2][crc >> 8 & 0xff] ^ table[1][crc >> 16 & 0xff] ^
              table[0][crc >> 24];
    }
    for (; size > 0; size--, byte++)
        crc = (crc >> 8) ^ table[0][(crc ^ *byte) & 0xff];
    return ~crc;
}
