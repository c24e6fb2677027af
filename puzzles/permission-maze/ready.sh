#!/bin/sh
# Broken as told: the page is up, and answers 403.
printf 'GET /programme.txt HTTP/1.0\r\n\r\n' | nc -w 3 127.0.0.1 8000 2>/dev/null | grep -q ' 403 '
