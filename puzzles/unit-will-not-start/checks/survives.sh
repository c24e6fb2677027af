#!/bin/sh
# What systemd will read at the next boot: the unit and its drop-ins, in the order of their names.

# setting KEY: the last value given. Drop-ins of /run are gone by then.
setting() {
    unit=/etc/systemd/system/hive-scale.service
    [ -e "$unit" ] || unit=/usr/lib/systemd/system/hive-scale.service
    drop_ins=$(for folder in /etc/systemd/system /usr/lib/systemd/system; do
        ls "$folder"/hive-scale.service.d/*.conf 2>/dev/null
    done | awk -F/ '{ print $NF "\t" $0 }' | sort | cut -f 2)
    # shellcheck disable=SC2086  # one word a file
    cat "$unit" $drop_ins 2>/dev/null |
        sed -n "s/^[ \t]*$1[ \t]*=[ \t]*//p" | tail -n 1
}

enabled=no
for link in /etc/systemd/system/*.wants/hive-scale.service \
    /etc/systemd/system/*.requires/hive-scale.service; do
    [ -L "$link" ] && [ -s "$link" ] && enabled=yes
done
[ "$enabled" = yes ] || fail "hive-scale.service will not be started at the next boot."
[ "$(setting ProtectSystem)" = strict ] ||
    fail "From the next boot on the system is no longer read-only for the scale's service."
case $(setting ReadWritePaths)$(setting BindPaths)$(setting StateDirectory) in
*apiary*) ;;
*) fail "At the next boot the scale's service may not write to /srv/apiary again." ;;
esac
