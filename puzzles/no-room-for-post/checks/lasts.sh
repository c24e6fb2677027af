#!/bin/sh
# Runs in a copy of the machine that has just been rebooted: letters into the first, a middle, the last.

stamped() {
    for hole in 001 151 240; do
        grep -q "hole $hole: $letter, stamped" /srv/post/ledger 2>/dev/null || return 1
    done
}
holds() { [ "$(cat /proc/[0-9]*/fdinfo/* 2>/dev/null | grep -c '^inotify ')" -ge 240 ]; }

eventually 12 holds || fail "After a reboot the pigeonholes are not watched any more."
letter=letter-$$
for hole in 001 151 240; do
    : >"/srv/post/holes/$hole/$letter" || fail "After a reboot nothing can be dropped into pigeonhole $hole."
done
eventually 8 stamped || fail "After a reboot a letter that is dropped into a pigeonhole gets no stamp."
