#!/bin/sh
# Asks how much is free and writes nothing: a check leaves the machine as it was.
blocks=$(stat -f -c %a /srv/inbox) && size=$(stat -f -c %S /srv/inbox) ||
    fail "There is no /srv/inbox any more."
[ $((blocks * size)) -ge 1048576 ] ||
    fail "Only $((blocks * size / 1024)) KiB are free in /srv/inbox."
