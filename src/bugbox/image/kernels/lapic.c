/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * bugbox.lapic_khz=KHZ: how fast the local APIC's timer counts. The one thing that we add to the
 * kernel's source.
 *
 * Otherwise the kernel measures it: a tenth of a second of waiting, and where it has no third timer
 * to check the answer by, another one. Under emulation there is nothing to measure, for the device
 * counts nanoseconds; and the check is against a timer that a busy host ticks too late.
 */
#include <linux/init.h>
#include <linux/kernel.h>

#include <asm/apic.h>

static int __init lapic_khz(char *text)
{
    unsigned int khz;

    if (text == NULL || kstrtouint(text, 10, &khz) < 0 || khz == 0)
        return -EINVAL;
    /* In counts per tick; HZ is a constant of the build. */
    lapic_timer_period = (u64)khz * 1000 / HZ;
    return 0;
}
early_param("bugbox.lapic_khz", lapic_khz);
