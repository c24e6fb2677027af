/* SPDX-License-Identifier: Apache-2.0 */
/* OPEN dial: a connection to a port on the guest's loopback. */
#ifndef DIAL_H
#define DIAL_H

#include "channel.h"

void dial_open(struct channel *channel, const struct fields *fields);

#endif
