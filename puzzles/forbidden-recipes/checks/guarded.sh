#!/bin/sh
# Runs in a copy of the machine: what a pupil might put on the page, and who the server is.

ask() { printf 'GET %s HTTP/1.0\r\n\r\n' "$1" | nc -w 3 127.0.0.1 8080 2>/dev/null; }
refused() {
    case $(ask "$1") in
    *' 403 '*) ;;
    *) fail "$2" ;;
    esac
}
id_of() { awk -F: -v name="$1" '$1 == name { print $3; exit }' /etc/passwd; }

# A server that was started again later would read the settings of then.
/usr/bin/systemctl restart larder.service 2>/dev/null
answers() { ask / | grep -q '^HTTP'; }
eventually 25 answers || fail "larder.service does not come back after a restart."

ln -s /etc/passwd /srv/recipes/basics/found
chown -h "$(id_of trainee):" /srv/recipes/basics/found
refused /basics/found "Now a pupil's link puts any file of this machine on the page."
: >/srv/recipes/basics/new.draft
refused /basics/new.draft "Drafts are shown to everybody now."
refused /basics/ "Now visitors can leaf through folders."
[ "$(stat -c %u /srv/kitchen/autumn)" = "$(id_of kitchen)" ] &&
    [ "$(stat -c %u /srv/kitchen/autumn/quinces.txt)" = "$(id_of kitchen)" ] ||
    fail "The kitchen's folder no longer belongs to the kitchen."
for path in /srv/kitchen /srv/kitchen/autumn /srv/kitchen/autumn/quinces.txt /srv/recipes; do
    case $(stat -c %a "$path") in
    *[2367]) fail "Everybody may write to $path now." ;;
    esac
done
for group in /proc/[0-9]*/cgroup; do
    grep -qs '/larder\.service$' "$group" || continue
    pid=${group#/proc/}
    [ "$(awk '/^Uid:/ { print $3 }' "/proc/${pid%/cgroup}/status" 2>/dev/null)" = "$(id_of www-data)" ] ||
        fail "The web server no longer runs as www-data."
done
exit 0
