#!/bin/sh
# Run by mmdebstrap when all packages are configured, outside the new root, which is $1.
# $BUGBOX_WORK: where notes for later steps go. $BUGBOX_RELEASE: the kernel's. $BUGBOX_UNITS: to preset.
set -eu
root=$1

# One time for everything this build makes: that of the newest package list.
for list in "$root"/var/lib/apt/lists/*_InRelease; do
    date -d "$(sed -n 's/^Date: //p' "$list" | head -n 1)" +%s
done | sort -n | tail -n 1 >"$BUGBOX_WORK/epoch"

chroot "$root" depmod "$BUGBOX_RELEASE"

# What kmod-static-nodes would find out at each boot: nodes whose first opening loads a module.
awk '!/^#/ {
    if (split($2, part, "/") > 1) print "d /dev/" part[1] " 0755 - - -"
    print substr($3, 1, 1) "! /dev/" $2 " 0600 - - - " substr($3, 2)
}' "$root/usr/lib/modules/$BUGBOX_RELEASE/modules.devname" >"$root/usr/lib/tmpfiles.d/bugbox-static-nodes.conf"

# Completion is read at the first Tab instead of at each login (files/etc/profile.d/bugbox.sh).
rm -f "$root/etc/profile.d/bash_completion.sh"
sed -i '/^# enable programmable completion/,$d' "$root/etc/skel/.bashrc"

chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 --groups sudo,adm,systemd-journal \
    --comment Learner learner
chroot "$root" passwd --quiet --lock root
chmod 0440 "$root/etc/sudoers.d/learner"
chroot "$root" visudo --check --quiet

# shellcheck disable=SC2086  # a list of unit names
chroot "$root" systemctl preset --quiet $BUGBOX_UNITS
chroot "$root" systemctl set-default --quiet multi-user.target

# A login runs no program to print its greeting.
: >"$root/etc/motd"
chmod -x "$root"/etc/update-motd.d/*
sed -i 's/^\(session .*pam_motd.so\)/#\1/' "$root/etc/pam.d/login" "$root/etc/pam.d/sshd"
