/* SPDX-License-Identifier: Apache-2.0 */
/* The way to the host on a VMM without a virtio-serial port: a vsock port that the host dials. */
#ifndef VSOCK_H
#define VSOCK_H

#include <stdbool.h>

enum { VSOCK_PORT = 5252 };

/* Listens, and hands each connection of the host's to the link. False where there is no vsock. */
bool vsock_listen(void);

#endif
