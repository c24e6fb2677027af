#!/bin/sh
[ "$(systemctl show --property ActiveState --value tower)" = active ] ||
    fail "The clock goes, and tower.service does not: it was started by hand."
[ "$(systemctl is-enabled tower)" = enabled ] || fail "tower.service will not start at the next boot."
