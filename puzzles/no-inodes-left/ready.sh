#!/bin/sh
# Broken as told: no inode is left, and nearly every byte.
[ "$(stat -f -c %d /var/spool/ferry)" = 0 ] && [ "$(stat -f -c %f /var/spool/ferry)" -gt 10000 ] &&
    grep -q 'trouble=yes' /run/ferry-desk/served
