#!/bin/sh
# Put down one session of an hour ago, named as the desk names them, and see whether it goes away.
sessions=/var/spool/ferry/sessions

# shellcheck disable=SC2012  # the desk gives plain names
newest=$(cd "$sessions" && ls -t | head -n 1)
[ -n "$newest" ] || newest=sess-1
canary=$sessions/$(echo "$newest" | sed 's/[0-9][0-9]*$//')1000000001

gone() { [ ! -e "$canary" ]; }

true >"$canary" || fail "No new file can be made in $sessions."
touch -d "@$(($(date +%s) - 3600))" "$canary"
eventually 25 gone && exit 0
rm -f "$canary"
fail "A session that nobody has touched for an hour is still there; the disk will be full again."
