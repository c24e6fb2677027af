/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel modules, in the order of a list. */
#ifndef MODULES_H
#define MODULES_H

/* Loads what the file `wanted` in `folder` names; NULL, or the one that failed, with errno. */
const char *modules_load(const char *folder, const char *wanted);
void modules_remove(const char *folder, const char *wanted);

#endif
