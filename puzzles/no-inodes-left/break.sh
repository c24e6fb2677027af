#!/bin/sh
# Twelve season tickets, and what people left behind at the desk in the last weeks.
spool=/var/spool/ferry

mkdir -p "$spool/tickets" "$spool/sessions"
number=1
while [ "$number" -le 12 ]; do
    ticket=$((4100 + number * 37))
    printf 'season ticket %04d\nvalid on every crossing, bicycle included\n' "$ticket" \
        >"$spool/tickets/$ticket"
    number=$((number + 1))
done
number=1695900000
while { true >"$spool/sessions/sess-$number"; } 2>/dev/null; do
    touch -d "@$number" "$spool/sessions/sess-$number"
    number=$((number + 97))
done
