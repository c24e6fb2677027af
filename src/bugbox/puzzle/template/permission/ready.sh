#!/bin/sh
# Runs as root on an untouched machine: 0 = it is broken as told. Changes nothing.
[ "$(stat -c %a /srv/report)" = 600 ] && [ -s /srv/report/week.txt ]
