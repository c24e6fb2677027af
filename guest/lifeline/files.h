/* SPDX-License-Identifier: Apache-2.0 */
/* OPEN put and OPEN get: whole files, by child processes. */
#ifndef FILES_H
#define FILES_H

#include "channel.h"

void put_open(struct channel *channel, const struct fields *fields);
void get_open(struct channel *channel, const struct fields *fields);

#endif
