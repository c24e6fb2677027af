#!/bin/sh
# How many folders a process of the service watches: a line each in the fdinfo of its descriptor.

pid_of_the_service() {
    for group in /proc/[0-9]*/cgroup; do
        grep -qs '/post-room\.service$' "$group" || continue
        pid=${group#/proc/}
        echo "${pid%/cgroup}"
        return
    done
}
watches() { cat "/proc/$pid"/fdinfo/* 2>/dev/null | grep -c '^inotify '; }
all() { pid=$(pid_of_the_service) && [ -n "$pid" ] && [ "$(watches)" -ge 240 ]; }

for n in $(seq 1 240); do
    hole=/srv/post/holes/$(printf %03d "$n")
    [ -d "$hole" ] && [ ! -L "$hole" ] || fail "Pigeonhole $(printf %03d "$n") is gone, and it belongs to somebody."
done
eventually 8 all
pid=$(pid_of_the_service)
[ -n "$pid" ] || fail "post-room.service does not run."
[ "$(watches)" -ge 240 ] || fail "Of 240 pigeonholes only $(watches) are watched."
[ "$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null)" = \
    "$(awk -F: '$1 == "postmaster" { print $3; exit }' /etc/passwd)" ] ||
    fail "The post room no longer runs as postmaster."
