#!/bin/sh
# Port 8081: there, and met with silence.
nc -w 8 127.0.0.1 8081 </dev/null 2>/dev/null | grep -q siren: ||
    fail "The siren can no longer be sounded at the station itself."

begun=$(date +%s)
/usr/sbin/ip netns exec hut /usr/bin/nc -w 3 10.88.1.1 8081 </dev/null >/dev/null 2>&1
case "$? $(($(date +%s) - begun))" in
"0 "*) fail "From the hut anybody can now sound the siren, by port 8081." ;;
*" 0" | *" 1") fail "Port 8081 is no longer silent to the hut: it refuses." ;;
esac
exit 0
