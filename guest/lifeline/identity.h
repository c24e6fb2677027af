/* SPDX-License-Identifier: Apache-2.0 */
/* What must not be the same in two machines, and which they can be told. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdint.h>

#include "fields.h"

enum { SEED = 64 };

/* Both return 0 or an errno. `seed` has SEED bytes. */
int identity_entropy(const uint8_t *seed);
/* Host name (NAME) and machine-id (DATA), each where it is given. */
int identity_set(const struct fields *fields);

#endif
