#!/bin/sh
blocks=$(stat -f -c %b /srv/inbox) && size=$(stat -f -c %S /srv/inbox)
[ $((blocks * size)) -eq 8388608 ] || fail "The inbox had 8 MiB; now it has another size."
