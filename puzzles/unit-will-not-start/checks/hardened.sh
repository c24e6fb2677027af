#!/bin/sh
# What the service's own process sees of the file systems: /proc/PID/mountinfo, field 6.

pid_of_the_service() {
    for group in /proc/[0-9]*/cgroup; do
        grep -qs '/hive-scale\.service$' "$group" || continue
        pid=${group#/proc/}
        echo "${pid%/cgroup}"
        return
    done
}

# options FOLDER: of the mount that FOLDER is on, as the process sees it; the last one counts.
options() {
    awk -v path="$1" '
        $5 == "/" || path == $5 || index(path, $5 "/") == 1 {
            if (length($5) >= length(best)) { best = $5; found = $6 }
        }
        END { print found }' "/proc/$pid/mountinfo" 2>/dev/null
}

pid=$(pid_of_the_service)
[ -n "$pid" ] || fail "hive-scale.service does not run."
for folder in /usr /etc /var/lib /srv; do
    case $(options "$folder") in
    ro | ro,*) ;;
    *) fail "The scale's service may now change $folder again." ;;
    esac
done
[ "$(awk '/^Uid:/ { print $2 }' "/proc/$pid/status" 2>/dev/null)" != 0 ] ||
    fail "The scale's service now runs as root."
