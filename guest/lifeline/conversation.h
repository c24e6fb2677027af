/* SPDX-License-Identifier: Apache-2.0 */
/* The conversation with the host: SYNC starts it, and every frame is handled here. */
#ifndef CONVERSATION_H
#define CONVERSATION_H

#include <stdbool.h>
#include <stdint.h>

void conversation_init(void);
bool conversation_is_on(void);
/* Remembered for every conversation to come, and said at once in a present one. */
void milestone(const char *name, int64_t time);
/* From NAME=NS,NAME=NS… as init hands them over. */
void milestones_parse(const char *list);

#endif
