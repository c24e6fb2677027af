#!/bin/sh
[ -d /srv/report ] || fail "There is no /srv/report any more."
cat /srv/report/week.txt >/dev/null 2>&1 || exit 1
