/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel modules, in the order of a list. */
#ifndef MODULES_H
#define MODULES_H

/* Loads what FOLDER/list names; NULL, or the name of the one that failed, with errno. */
const char *modules_load(const char *folder);
void modules_remove(const char *folder);

#endif
