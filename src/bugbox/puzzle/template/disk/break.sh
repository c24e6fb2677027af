#!/bin/sh
# Runs once a machine, as root, before it is handed over: a fault that lives in memory. After the
# learner's reboot it is gone, and not made again.
mkdir /srv/inbox/.thumbnails
# It fills up to the last page, and complains; that is what it is for.
dd if=/dev/zero of=/srv/inbox/.thumbnails/cache bs=64k 2>/dev/null
exit 0
