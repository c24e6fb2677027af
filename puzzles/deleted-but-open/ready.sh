#!/bin/sh
# Broken as told: the RAM disk is full, no name on it, and one shipment has gone ashore.
used=$(df -k /run/tide | awk 'NR == 2 { print $4 }')
[ "$used" = 0 ] && [ -z "$(ls -A /run/tide)" ] &&
    [ "$(wc -l </run/tide-ashore/receipts)" = 1 ]
