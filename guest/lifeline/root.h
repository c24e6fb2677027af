/* SPDX-License-Identifier: Apache-2.0 */
/* The root device: waiting for it, and growing its filesystem to its size. */
#ifndef ROOT_H
#define ROOT_H

#include <stdbool.h>

bool root_wait(const char *device);
/* Grows the ext4 on `device`, mounted writable at `mounted`; true when there is nothing to do. */
bool root_grow(const char *device, const char *mounted);

/* Mount drives ("/dev/vdc,/dev/vdb,/dev/vda": the one that is written, then what lies below, the
 * uppermost first) as one overlay. NULL when done, else what failed, with errno. */
const char *root_join(const char *drives, const char *place);

#endif
