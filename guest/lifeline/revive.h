/* SPDX-License-Identifier: Apache-2.0 */
/* Coming back after `kill -9 -1`: a twin of the agent, kept running by the real init. */
#ifndef REVIVE_H
#define REVIVE_H

#include <stdbool.h>

/* Writes the twin's unit below a folder that will be /run. */
bool revive_write_unit(int run);
/* The twin: waits until the agent is gone, and takes its place. */
_Noreturn void revive_wait(void);

#endif
