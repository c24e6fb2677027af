/* SPDX-License-Identifier: Apache-2.0 */
/* OPEN exec and OPEN script: a command with its streams apart. */
#ifndef EXEC_H
#define EXEC_H

#include "channel.h"

void exec_open(struct channel *channel, const struct fields *fields);
void script_open(struct channel *channel, const struct fields *fields);

#endif
