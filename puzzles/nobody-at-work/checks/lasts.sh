#!/bin/sh
# Runs in a copy of the machine that has just been rebooted.

ovens() { cat /proc/[0-9]*/comm 2>/dev/null | grep -cx oven; }
right() { [ "$(ovens)" -ge 4 ] && grep -q "ovens burning: $(ovens)\$" /run/watchman/report 2>/dev/null; }

eventually 15 right || fail "After a reboot the report is wrong again: $(cut -c 1-60 /run/watchman/report 2>/dev/null)"
for mount in $(awk '$5 == "/proc" { print $NF }' /proc/1/mountinfo); do options=$mount; done
case ,$options, in
*,hidepid=invisible,* | *,hidepid=2,*) ;;
*) fail "After a reboot everybody can look into other people's processes." ;;
esac
pid=$(grep -ls '/watchman\.service$' /proc/[0-9]*/cgroup | head -n 1)
pid=${pid#/proc/}
[ "$(awk '/^Uid:/ { print $3 }' "/proc/${pid%/cgroup}/status" 2>/dev/null)" != 0 ] ||
    fail "After a reboot the watchman is root."
