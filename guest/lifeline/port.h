/* SPDX-License-Identifier: Apache-2.0 */
/* Where the host is to be found: a virtio-serial port by its name, or a test's socket. */
#ifndef PORT_H
#define PORT_H

/* Looks for the port until it is there, and hands it to the link. */
void port_search(void);
/* The host's end was closed. A virtio port stays open; a test's socket is accepted anew. */
void port_away(void);
/* For tests: an inherited descriptor's number, or the path of a UNIX socket to listen on. */
int port_use_socket(const char *fd_or_path);

#endif
