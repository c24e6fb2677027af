#!/bin/sh
# Broken as told: one reads, the other waits.
/usr/sbin/ip netns exec village /usr/bin/nc -z -w 3 10.77.1.1 8080 &&
    ! /usr/sbin/ip netns exec island /usr/bin/nc -z -w 1 10.77.2.1 8080
