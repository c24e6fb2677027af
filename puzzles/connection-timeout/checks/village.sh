#!/bin/sh
# What is read at the other end of the cable.
ask() { printf 'GET / HTTP/1.0\r\n\r\n' | /usr/sbin/ip netns exec village /usr/bin/nc -w 8 10.77.1.1 8080 2>/dev/null; }

[ -e /run/netns/village ] || fail "The village is gone: there is no network namespace of that name."
case $(ask) in
*wind:*) ;;
'') fail "In the village http://10.77.1.1:8080/ is still not answered." ;;
*) fail "In the village port 8080 is answered, but not with the wind." ;;
esac
