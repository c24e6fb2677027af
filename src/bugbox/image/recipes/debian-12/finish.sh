#!/bin/sh
# Clean a finished root, $1, so that two builds of the same packages are the same: no secrets, no identity, no
# traces of the host, no times of the build. $2: seconds since 1970, the newest time a file may have.
set -eu
cd "$1"
epoch=$2

find dev run tmp var/tmp -mindepth 1 -delete
rm -rf var/lib/apt/lists/* var/cache/apt/*.bin var/cache/apt/archives/*.deb var/cache/debconf/*-old var/lib/dpkg/*-old
mkdir -p var/lib/apt/lists/partial
rm -rf var/log/journal
find var/log -type f -exec truncate -s 0 {} +
find usr/lib usr/share -name __pycache__ -prune -exec rm -rf {} +

rm -f etc/ssh/ssh_host_* var/lib/systemd/random-seed var/lib/systemd/credential.secret etc/.pwd.lock
rm -f etc/passwd- etc/shadow- etc/group- etc/gshadow- etc/subuid- etc/subgid-
# The day of the last password change: of the build.
sed -i "s/^\([^:]*:[^:]*\):[0-9]*:/\1:$((epoch / 86400)):/" etc/shadow
rm -f etc/machine-id && : >etc/machine-id && chmod 0444 etc/machine-id

# mmdebstrap copies the host's.
rm -f etc/hostname etc/resolv.conf
echo bugbox >etc/hostname
cat >etc/resolv.conf <<'R'
# The name server of a user-mode network. Without a network card no query leaves the machine.
nameserver 10.0.2.3
options timeout:2 attempts:2
R
chmod 0644 etc/hostname etc/resolv.conf

find . -newermt "@$epoch" -exec touch --no-dereference --date="@$epoch" {} +

# "Nothing in /usr is newer than /etc and /var": spares four services at each boot.
when=$(stat --format=%.9Y usr | tr -d .)
for place in etc var; do
    printf 'TIMESTAMP_NSEC=%s\n' "$when" >"$place/.updated"
    touch --reference=usr "$place/.updated"
    touch --date="@$epoch" "$place"
done
