/* SPDX-License-Identifier: Apache-2.0 */
/* CALLs: questions answered at once, or by a child where the guest's filesystem is asked. */
#ifndef CALLS_H
#define CALLS_H

#include "fields.h"

void call(const struct fields *fields);
/* The conversation is over: who asked is gone. */
void calls_forget(void);

#endif
