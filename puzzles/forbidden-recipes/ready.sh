#!/bin/sh
# Broken as told: one folder is shown, the season's is refused.
ask() { printf 'GET %s HTTP/1.0\r\n\r\n' "$1" | nc -w 3 127.0.0.1 8080 2>/dev/null | head -n 1; }
case $(ask /basics/stock.txt)$(ask /season/quinces.txt) in
*' 200 '*' 403 '*) ;;
*) exit 1 ;;
esac
