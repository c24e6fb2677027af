#!/bin/sh
# What a tablet at the entrance would see.
page=$(printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 127.0.0.1 8080 2>&1)

case $page in
*"TODAY AT THE CANTEEN"*) ;;
*410*) fail "Port 8080 is still answered by the notice board that was taken down." ;;
*refused*) fail "Nobody answers on port 8080." ;;
*) fail "What port 8080 shows is not today's menu." ;;
esac
