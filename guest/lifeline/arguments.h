/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's arguments that are ours. */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <stdbool.h>

struct arguments {
    char root[128]; /* bugbox.root=/dev/vda */
    char type[32];  /* bugbox.rootfstype=ext4 */
    char overlay[128]; /* bugbox.overlay=/dev/vdc,/dev/vdb,/dev/vda: written to, over, over */
    char init[128]; /* bugbox.init=/sbin/init, or none */
    bool alone;     /* bugbox.init=none */
    bool debug;     /* bugbox.debug */
    bool vsock;     /* bugbox.lifeline=vsock */
};

bool arguments_read(struct arguments *arguments);

#endif
