#!/bin/sh
# What systemd will read at the next boot. Drop-ins of /run are gone by then.

# setting KEY: whether the timer has it, with a value.
setting() {
    timer=/etc/systemd/system/orders-copy.timer
    [ -e "$timer" ] || timer=/usr/lib/systemd/system/orders-copy.timer
    value=$(cat "$timer" /etc/systemd/system/orders-copy.timer.d/*.conf 2>/dev/null |
        sed -n "s/^[ \t]*$1[ \t]*=[ \t]*//p" | tail -n 1)
    [ -n "$value" ]
}

# enabled UNIT: whether a target wants it.
enabled() {
    for link in /etc/systemd/system/*.wants/"$1" /etc/systemd/system/*.requires/"$1"; do
        [ -L "$link" ] && [ -s "$link" ] && return 0
    done
    return 1
}

enabled orders-copy.timer || fail "orders-copy.timer will not be started at the next boot."
for first in OnCalendar OnBootSec OnStartupSec OnActiveSec; do
    setting "$first" && exit 0
done
# Or the boot starts the service once, and the timer goes on from there.
enabled orders-copy.service && setting OnUnitActiveSec && exit 0
fail "After the next boot the timer waits again for something that does not happen by itself."
