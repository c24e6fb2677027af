#!/bin/sh
# The choir's folder with two of its three locks; break.sh has the third, which no layer can carry.
set -eu

groupadd --system choir
useradd --system --no-create-home --shell /usr/sbin/nologin --gid choir choirmaster
usermod --append --groups choir www-data
usermod --append --groups choir learner
install -D -m 0755 files/choir-page /usr/local/lib/choir/choir-page
install -m 0644 files/choir-page.service /etc/systemd/system/
systemctl enable choir-page.service

install -d -m 2770 -o choirmaster -g choir /srv/choir /srv/choir/public /srv/choir/archive
install -m 0660 -o choirmaster -g choir files/programme.txt /srv/choir/public/programme.txt
install -m 0660 -o choirmaster -g choir files/telephones.txt /srv/choir/archive/telephones.txt

# The group may do anything, says the entry; the mask beneath it says that it may not.
setfacl --modify user:choirmaster:rw,group:choir:rw /srv/choir/public/programme.txt
setfacl --modify mask::r /srv/choir/public/programme.txt
# The group may list the folder and not walk through it.
chmod 2760 /srv/choir
