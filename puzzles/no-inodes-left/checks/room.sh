#!/bin/sh
# Inodes, not bytes. A fifth of them free is what a mended desk has easily.
disk=/var/spool/ferry

free=$(stat -f -c %d "$disk")
all=$(stat -f -c %c "$disk")
[ "$((free * 5))" -ge "$all" ] ||
    fail "Of the $all files that $disk can hold, only $free are still to be had."
