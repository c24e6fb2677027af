#!/bin/sh
pid=$(systemctl show --property MainPID --value tower)
[ "$(stat -c %U "/proc/$pid")" = tower ] || fail "The clock runs as $(stat -c %U "/proc/$pid"), not as tower."
