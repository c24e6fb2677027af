#!/bin/sh
# The two cables and who lives at their other ends: surroundings, made anew at each boot.
for place in village:1 island:2; do
    name=${place%:*} net=10.77.${place#*:}
    [ -e "/run/netns/$name" ] && continue
    /usr/sbin/ip netns add "$name"
    /usr/sbin/ip link add "to-$name" type veth peer name cable netns "$name"
    /usr/sbin/ip addr add "$net.1/24" dev "to-$name"
    /usr/sbin/ip link set "to-$name" up
    /usr/sbin/ip -n "$name" addr add "$net.2/24" dev cable
    /usr/sbin/ip -n "$name" link set cable up
    /usr/sbin/ip -n "$name" link set lo up
done
