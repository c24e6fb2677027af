#!/bin/sh
# The limit of the process that runs, and what the unit's files give the next one.

# setting KEY: the last value given, drop-ins after the unit. Those of /run are gone by then.
setting() {
    unit=/etc/systemd/system/cloakroom.service
    drop_ins=$(ls /etc/systemd/system/cloakroom.service.d/*.conf 2>/dev/null)
    # shellcheck disable=SC2086  # one word a file
    cat "$unit" $drop_ins 2>/dev/null | sed -n "s/^[ \t]*$1[ \t]*=[ \t]*//p" | tail -n 1
}

[ -e /etc/systemd/system/multi-user.target.wants/cloakroom.service ] ||
    fail "cloakroom.service will not be started at the next boot."
limit=$(setting LimitNOFILE)
limit=${limit%%:*}
case $limit in
'') fail "At the next boot systemd's own limit counts for the cloakroom; say in the unit what it needs." ;;
infinity) fail "The limit may be 8192 at most." ;;
*[!0-9]*) fail "LimitNOFILE=$limit is not a number." ;;
esac
[ "$limit" -ge 110 ] || fail "At the next boot the limit is $limit again."
[ "$limit" -le 8192 ] || fail "The limit may be 8192 at most, not $limit."
