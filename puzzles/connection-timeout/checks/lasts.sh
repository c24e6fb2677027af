#!/bin/sh
# Load what the next boot would load, in a namespace of its own, and compare it with what is loaded.

rules() { /usr/sbin/nft --stateless list ruleset 2>/dev/null; }

[ -e /etc/systemd/system/sysinit.target.wants/nftables.service ] ||
    fail "The firewall will not be loaded at the next boot: nftables.service is not enabled."
now=$(rules)
later=$(/usr/bin/unshare --net sh -c '/usr/sbin/nft --file /etc/nftables.conf && /usr/sbin/nft --stateless list ruleset' 2>/dev/null) ||
    fail "/etc/nftables.conf cannot be loaded."
[ "$now" = "$later" ] || fail "The rules that are loaded are not those of /etc/nftables.conf."
