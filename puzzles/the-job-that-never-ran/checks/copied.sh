#!/bin/sh
# A file of today's name, newer than this check, with the orders in it.
orders=/srv/bakery/orders.txt
begun=$(date +%s)

copy() { echo "/srv/bakery/copies/orders-$(date +%Y-%m-%d).txt"; }
fresh() { [ -f "$(copy)" ] && [ "$(stat -c %Y "$(copy)")" -gt "$begun" ]; }
alike() { [ "$(cat "$(copy)")" = "$(cat "$orders")" ]; }

[ -s "$orders" ] || fail "The orders themselves are gone: there is no $orders."
if ! eventually 16 fresh; then
    [ ! -e "$(copy)" ] || fail "There is a copy of today's orders, and no new one for sixteen seconds."
    fail "No copy of today's orders has appeared for sixteen seconds."
fi
eventually 3 alike || fail "What is copied is not what stands in $orders."
