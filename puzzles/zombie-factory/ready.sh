#!/bin/sh
# Broken as told: nobody has come in for two seconds, and most of those who are in are dead.
before=$(wc -l </run/print-shop/pages)
[ "$before" -ge 50 ] && sleep 2 && [ "$(wc -l </run/print-shop/pages)" = "$before" ]
