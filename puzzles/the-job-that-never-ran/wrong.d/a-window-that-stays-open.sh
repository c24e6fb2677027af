#!/bin/sh
# refused by: by-timer
# As on the old computer.
sudo setsid sh -c 'while sleep 3; do
    cp /srv/bakery/orders.txt /srv/bakery/copies/orders-$(date +%Y-%m-%d).txt
done >/dev/null 2>&1 </dev/null &'
