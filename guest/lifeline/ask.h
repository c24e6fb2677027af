/* SPDX-License-Identifier: Apache-2.0 */
/* Questions from inside: `bugbox check` in the guest, passed on to the host. */
#ifndef ASK_H
#define ASK_H

#include <stdbool.h>

#include "fields.h"

void ask_init(void);
/* An ANSWER from the host. */
void ask_answer(const struct fields *fields, bool last);
/* The conversation is over: nobody will answer. */
void ask_forget(void);

#endif
