#!/bin/sh
# The short page, from the hut.
/usr/sbin/ip netns exec hut /usr/bin/curl -s -m 8 http://10.88.1.1:8080/now 2>/dev/null | grep -q degrees ||
    fail "The hut no longer reads the weather of this minute."
