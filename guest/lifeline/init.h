/* SPDX-License-Identifier: Apache-2.0 */
/* The initramfs's /init: from the kernel's hand to the real init's. */
#ifndef INIT_H
#define INIT_H

_Noreturn void init_run(void);

#endif
