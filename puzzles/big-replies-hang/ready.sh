#!/bin/sh
# Broken as told: the line arrives in the hut, the chart does not.
ask() { /usr/sbin/ip netns exec hut /usr/bin/curl -s -m "$2" "http://10.88.1.1:8080/$1"; }
ask now 5 | grep -q degrees && ! ask chart 2 | grep -q hPa
