#!/bin/sh
# A post room with three boxes, all with the same access control list but one.
set -eu

groupadd --system post
useradd --system --no-create-home --shell /usr/sbin/nologin --gid post postmaster
useradd --system --no-create-home --shell /usr/sbin/nologin courier
usermod --append --groups post learner

install -d -m 0755 /srv/post
install -m 0644 files/notice.txt /srv/post/notice.txt

for name in learner maria tom; do
    box=/srv/post/$name
    install -d -o postmaster -g post -m 0770 "$box"
    setfacl --modify user:courier:rwx "$box"
    install -o courier -g post -m 0640 "files/$name.txt" "$box/letter.txt"
    install -o courier -g courier -m 0644 files/deliveries.log "$box/deliveries.log"
done
chown learner:post /srv/post/learner/letter.txt

# The fault: the lock for the holidays, never taken off again.
setfacl --modify user:learner:--- /srv/post/learner

find /srv/post -exec touch --date='2023-11-27 08:02' {} +
