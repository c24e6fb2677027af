#!/bin/sh
# Runs in a copy of the machine that has just been rebooted: what would a tablet see tomorrow?

ask() { printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 127.0.0.1 8080 2>&1; }

inodes() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$2 ~ /:1F90$/ && $4 == "0A" { print $10 }'; }

by_the_service() {
    for inode in $(inodes); do
        for pid in $(ls -l /proc/[0-9]*/fd/* 2>/dev/null |
            sed -n "s|.* /proc/\([0-9]*\)/fd/[0-9]* -> socket:\[$inode\]\$|\1|p"); do
            grep -q '/menu\.service$' "/proc/$pid/cgroup" 2>/dev/null && return 0
        done
    done
    return 1
}

for second in $(seq 6); do
    page=$(ask)
    case $page in
    *"TODAY AT THE CANTEEN"*)
        by_the_service && exit 0
        fail "After a reboot the menu is shown, but not by menu.service."
        ;;
    *refused* | '') [ "$second" = 6 ] || sleep 1 ;;
    *) break ;;
    esac
done
case $page in
*410*) fail "After a reboot port 8080 is answered by the old notice board again." ;;
*refused* | '') fail "After a reboot nobody answers on port 8080." ;;
*) fail "After a reboot port 8080 does not show today's menu." ;;
esac
