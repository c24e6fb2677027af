#!/bin/sh
# Who holds the listening socket of port 8080 (0x1F90), and to which unit does it belong?

inodes() { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$2 ~ /:1F90$/ && $4 == "0A" { print $10 }'; }

holders() {
    for inode in $(inodes); do
        ls -l /proc/[0-9]*/fd/* 2>/dev/null |
            sed -n "s|.* /proc/\([0-9]*\)/fd/[0-9]* -> socket:\[$inode\]\$|\1|p"
    done
}

for pid in $(holders); do
    grep -q '/menu\.service$' "/proc/$pid/cgroup" 2>/dev/null && exit 0
done
fail "The menu is shown, but not by menu.service."
