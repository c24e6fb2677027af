#!/bin/sh
# Runs in a copy of the machine: the kitchen has a new idea.
echo "A pinch of salt, said the cook ($$)." >>/srv/kitchen/autumn/quinces.txt
printf 'GET /season/quinces.txt HTTP/1.0\r\n\r\n' | nc -w 3 127.0.0.1 8080 2>/dev/null |
    grep -q "said the cook ($$)" ||
    fail "The kitchen changed a recipe, and the page shows the old one."
