#!/bin/sh
# refused by: copied
# One copy, made in a terminal.
sudo sh -c 'cp /srv/bakery/orders.txt /srv/bakery/copies/orders-$(date +%Y-%m-%d).txt'
