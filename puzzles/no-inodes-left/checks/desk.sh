#!/bin/sh
# The desk counts whom it has served; the number must grow.
served() { sed -n 's/^served=\([0-9]*\) trouble=no$/\1/p' /run/ferry-desk/served 2>/dev/null; }
serves() { now=$(served) && [ -n "$now" ] && [ "$now" -gt "$before" ]; }
of_the_service() { grep -qs '/ferry-desk\.service$' /proc/[0-9]*/cgroup; }

of_the_service || fail "ferry-desk.service does not run."
before=$(served)
before=${before:-0}
eventually 10 serves || fail "Nobody has been served at the desk for ten seconds."
[ -d /var/spool/ferry/sessions ] || fail "There is no folder /var/spool/ferry/sessions any more."
