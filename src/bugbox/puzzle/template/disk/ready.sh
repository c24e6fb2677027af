#!/bin/sh
# Runs as root on an untouched machine: 0 = it is broken as told. Changes nothing.
[ "$(stat -f -c %a /srv/inbox)" -eq 0 ] && [ -s /srv/inbox/may.txt ]
