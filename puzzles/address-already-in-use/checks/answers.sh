#!/bin/sh
# What a tablet at the entrance would see. A service that was started a moment ago gets its chance.

ask() { printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 127.0.0.1 8080 2>&1; }

for second in $(seq 6); do
    page=$(ask)
    case $page in
    *"TODAY AT THE CANTEEN"*) exit 0 ;;
    *refused* | '') [ "$second" = 6 ] || sleep 1 ;;
    *) break ;;
    esac
done
case $page in
*410*) fail "Port 8080 is still answered by the notice board that was taken down." ;;
*refused* | '') fail "Nobody answers on port 8080." ;;
*) fail "What port 8080 shows is not today's menu." ;;
esac
