#!/bin/sh
# What systemd will find at the next boot: read from the unit files, nothing is started for it.

# unit_file NAME: the file that counts; nothing when there is none or the unit is masked.
unit_file() {
    for folder in /etc/systemd/system /run/systemd/system /usr/local/lib/systemd/system \
        /usr/lib/systemd/system; do
        [ -e "$folder/$1" ] || [ -L "$folder/$1" ] || continue
        [ -s "$folder/$1" ] && [ -f "$folder/$1" ] && echo "$folder/$1"
        return
    done
}

# ports NAME: what a socket unit with its drop-ins listens on. An empty value starts afresh.
ports() {
    file=$(unit_file "$1")
    [ -n "$file" ] || return
    cat "$file" /etc/systemd/system/"$1".d/*.conf /usr/lib/systemd/system/"$1".d/*.conf 2>/dev/null |
        awk -F= '/^[ \t]*ListenStream[ \t]*=/ {
            gsub(/[ \t]/, "", $2)
            if ($2 == "") list = ""; else list = list " " $2
        } END { print list }'
}

enabled=no
for link in /etc/systemd/system/*.wants/menu.service /etc/systemd/system/*.requires/menu.service; do
    [ -L "$link" ] && enabled=yes
done
[ "$enabled" = yes ] && [ -n "$(unit_file menu.service)" ] ||
    fail "menu.service will not be started at the next boot."

for link in /etc/systemd/system/*.wants/*.socket /etc/systemd/system/*.requires/*.socket \
    /usr/lib/systemd/system/sockets.target.wants/*.socket; do
    [ -L "$link" ] || continue
    unit=${link##*/}
    for port in $(ports "$unit"); do
        case $port in
        8080 | *:8080) fail "At the next boot $unit will take port 8080 before menu.service can." ;;
        esac
    done
done
exit 0
