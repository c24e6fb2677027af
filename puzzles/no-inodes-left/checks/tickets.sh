#!/bin/sh
# Twelve files, each as it was sold.
tickets=/var/spool/ferry/tickets

number=1
while [ "$number" -le 12 ]; do
    ticket=$((4100 + number * 37))
    [ -e "$tickets/$ticket" ] || fail "Season ticket $ticket is gone."
    [ "$(head -n 1 "$tickets/$ticket")" = "season ticket $ticket" ] ||
        fail "Season ticket $ticket is no longer what was sold."
    number=$((number + 1))
done
exit 0
