#!/bin/sh
# Nobody owns, reads or runs more than before.

# field NUMBER FILE NAME: one field of a line of passwd or group.
field() { awk -F: -v n="$1" -v name="$3" '$1 == name { print $n; exit }' "$2"; }

master=$(field 3 /etc/passwd choirmaster)
choir=$(field 3 /etc/group choir)
[ -n "$master" ] && [ -n "$choir" ] || fail "The choirmaster's account or the group choir is gone."

for path in /srv/choir /srv/choir/public /srv/choir/archive /srv/choir/public/programme.txt \
    /srv/choir/archive/telephones.txt; do
    [ -e "$path" ] || fail "$path is gone."
    [ "$(stat -c %u:%g "$path")" = "$master:$choir" ] ||
        fail "$path no longer belongs to the choirmaster and the group choir."
    case $(stat -c %a "$path") in
    *0) ;;
    *) fail "Now everybody on the machine may get at $path, not only the choir." ;;
    esac
done

for group in /proc/[0-9]*/cgroup; do
    grep -qs '/choir-page\.service$' "$group" || continue
    pid=${group#/proc/}
    pid=${pid%/cgroup}
    [ "$(awk '/^Uid:/ { print $3 }' "/proc/$pid/status" 2>/dev/null)" = "$(field 3 /etc/passwd www-data)" ] ||
        fail "The page is no longer run by www-data."
done
exit 0
