#!/bin/sh
# The way up to the hut: a cable, a radio link with room for 1400 bytes, another cable.
[ -e /run/netns/hut ] && exit 0

for place in mast relay hut; do
    /usr/sbin/ip netns add "$place"
    /usr/sbin/ip -n "$place" link set lo up
done
/usr/sbin/ip -batch - <<'END'
link add to-mast type veth peer name to-valley netns mast
addr add 10.88.1.1/24 dev to-mast
link set to-mast up
route add 10.88.0.0/16 via 10.88.1.2
END
/usr/sbin/ip -n mast -batch - <<'END'
link add radio mtu 1400 type veth peer name radio mtu 1400 netns relay
addr add 10.88.1.2/24 dev to-valley
addr add 10.88.2.1/24 dev radio
link set to-valley up
link set radio up
route add 10.88.3.0/24 via 10.88.2.2
END
/usr/sbin/ip -n relay -batch - <<'END'
link add to-hut type veth peer name cable netns hut
addr add 10.88.2.2/24 dev radio
addr add 10.88.3.1/24 dev to-hut
link set radio up
link set to-hut up
route add 10.88.1.0/24 via 10.88.2.1
END
/usr/sbin/ip -n hut -batch - <<'END'
addr add 10.88.3.2/24 dev cable
link set cable up
route add default via 10.88.3.1
END
for place in mast relay; do
    /usr/sbin/ip netns exec "$place" /bin/sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
done
