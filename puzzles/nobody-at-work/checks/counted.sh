#!/bin/sh
# What the report says against what root counts, and who wrote it.

ovens() { cat /proc/[0-9]*/comm 2>/dev/null | grep -cx oven; }
right() { [ "$(sed -n 's/^[0-9:]* ovens burning: //p' /run/watchman/report 2>/dev/null)" = "$(ovens)" ]; }

pid_of_the_service() {
    for group in /proc/[0-9]*/cgroup; do
        grep -qs '/watchman\.service$' "$group" || continue
        pid=${group#/proc/}
        echo "${pid%/cgroup}"
        return
    done
}

[ "$(ovens)" -ge 4 ] || fail "Of the four ovens only $(ovens) are burning."
pid=$(pid_of_the_service)
[ -n "$pid" ] || fail "watchman.service does not run."
was=$(cat /run/watchman/report 2>/dev/null)
goes_on() { now=$(cat /run/watchman/report 2>/dev/null) && [ -n "$now" ] && [ "$now" != "$was" ]; }
eventually 8 goes_on || fail "The watchman has not reported for eight seconds."
eventually 6 right || fail "The report says: $(cut -c 1-60 /run/watchman/report 2>/dev/null)"
[ "$(awk '/^Uid:/ { print $3 }' "/proc/$pid/status" 2>/dev/null)" = \
    "$(awk -F: '$1 == "watchman" { print $3; exit }' /etc/passwd)" ] ||
    fail "The watchman is no longer the user watchman."
