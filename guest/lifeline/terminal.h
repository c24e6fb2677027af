/* SPDX-License-Identifier: Apache-2.0 */
/* Terminals: they outlive the channel, and the conversation, that opened them. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include "channel.h"
#include "fields.h"

void terminal_open(struct channel *channel, const struct fields *fields);
void terminal_attach(struct channel *channel, const struct fields *fields);
void terminal_resize(struct terminal *terminal, const struct fields *fields);
void terminal_signal(struct terminal *terminal, int number);
/* Its channel is gone. */
void terminal_detached(struct terminal *terminal);
/* Ends a terminal by its id; false when there is none. */
bool terminal_hang_up(const char *id);

void terminal_describe(const struct terminal *terminal, struct writer *writer);
void terminals_describe(struct writer *writer);

#endif
