#!/bin/sh
# The chart arrives now. It will after a boot, too, if all that a boot makes anew is as a boot makes it:
# the rules, the kernel's settings, the cables, and what stands on the mast.

rules() { /usr/sbin/nft --stateless list ruleset 2>/dev/null; }
mtu() { /usr/sbin/ip -n "$1" link show "$2" 2>/dev/null | sed -n 's/.* mtu \([0-9]*\) .*/\1/p'; }

[ -e /etc/systemd/system/sysinit.target.wants/nftables.service ] ||
    fail "The firewall will not be loaded at the next boot: nftables.service is not enabled."
now=$(rules)
later=$(/usr/bin/unshare --net sh -c '/usr/sbin/nft --file /etc/nftables.conf && /usr/sbin/nft --stateless list ruleset' 2>/dev/null) ||
    fail "/etc/nftables.conf cannot be loaded."
[ "$now" = "$later" ] || fail "The rules that are loaded are not those of /etc/nftables.conf."

probing=$(cat /usr/lib/sysctl.d/*.conf /etc/sysctl.d/*.conf /etc/sysctl.conf 2>/dev/null |
    sed -n 's/^[- \t]*net[./]ipv4[./]tcp_mtu_probing[ \t]*=[ \t]*//p' | tail -n 1)
[ "$(cat /proc/sys/net/ipv4/tcp_mtu_probing)" = "${probing:-0}" ] ||
    fail "At the next boot the kernel will have other settings than now: look into /etc/sysctl.d."

[ "$(cat /sys/class/net/to-mast/mtu)" = 1500 ] ||
    fail "The cable to the mast will be set up anew at the next boot, with its old MTU."
case $(/usr/sbin/ip route show) in
*mtu* | *advmss*) fail "The route to the hut will be set up anew at the next boot, as it was before." ;;
esac
[ "$(mtu mast radio) $(mtu relay radio) $(mtu hut cable)" = "1400 1400 1500" ] ||
    fail "Radio and cables on the way to the hut are not yours to change; the next boot undoes it."
for place in mast relay hut; do
    [ -z "$(/usr/sbin/ip netns exec "$place" /usr/sbin/nft list ruleset 2>/dev/null)" ] ||
        fail "Rules in the $place are gone after the next boot, and the $place is not yours."
done
exit 0
