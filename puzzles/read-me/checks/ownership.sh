#!/bin/sh
# Numbers, not names: a name is only looked up in the machine's own list.
box=/srv/post/learner

# field NUMBER FILE NAME: one field of a line of passwd or group.
field() { awk -F: -v n="$1" -v name="$3" '$1 == name { print $n; exit }' "$2"; }

[ -n "$(field 3 /etc/passwd courier)" ] || fail "The courier's account is gone."
[ -d "$box" ] && [ ! -L "$box" ] || fail "$box is no longer a folder."
[ "$(stat -c %u "$box")" = "$(field 3 /etc/passwd postmaster)" ] ||
    fail "$box no longer belongs to the postmaster."
[ "$(stat -c %g "$box")" = "$(field 3 /etc/group post)" ] ||
    fail "$box no longer belongs to the group post."
[ ! -L "$box/letter.txt" ] || fail "The letter has been moved out of the box."
