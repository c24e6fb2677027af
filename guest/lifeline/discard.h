/* SPDX-License-Identifier: Apache-2.0 */
/* Output that nobody asked for any more, read so that its writer does not die of a broken pipe. */
#ifndef DISCARD_H
#define DISCARD_H

#include "loop.h"

/* Takes the descriptor out of the watch and reads it to its end. */
void discard(struct watch *watch);

#endif
