#!/bin/sh
# Port 2323: there, and met with silence. A refusal would mean that the lamp's control is off.

# tried PLACE ADDRESS: seconds until the attempt ended, and its status.
tried() {
    begun=$(date +%s)
    /usr/sbin/ip netns exec "$1" /usr/bin/nc -w 3 "$2" 2323 </dev/null >/dev/null 2>&1
    echo "$? $(($(date +%s) - begun))"
}

printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 8 127.0.0.1 2323 2>/dev/null | grep -q lamp: ||
    fail "The lamp's control no longer works on the lighthouse itself."
for place in village:10.77.1.1 island:10.77.2.1; do
    case $(tried "${place%%:*}" "${place#*:}") in
    "0 "*) fail "From the ${place%%:*} anybody can now turn the lamp, by port 2323." ;;
    *" 0" | *" 1") fail "Port 2323 is no longer silent to the ${place%%:*}: it refuses." ;;
    esac
done
exit 0
