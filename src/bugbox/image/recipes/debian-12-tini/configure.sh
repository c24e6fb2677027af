
# Another process 1 than debian-12's, whose configure.sh this follows. Packages that bring systemd's links to these names
# leave ours alone: they are diverted.
for name in init halt poweroff reboot shutdown; do
    chroot "$root" dpkg-divert --quiet --local --rename --divert "/sbin/$name.systemd" --add "/sbin/$name"
done
for name in init halt poweroff reboot; do
    ln -s /bin/busybox "$root/sbin/$name"
done
ln -s /usr/lib/bugbox/init/shutdown "$root/sbin/shutdown"

# What systemd links in /dev.
mkdir "$root/usr/lib/bugbox/init/dev"
ln -s /proc/self/fd "$root/usr/lib/bugbox/init/dev/fd"
for pair in stdin:0 stdout:1 stderr:2; do
    ln -s "/proc/self/fd/${pair#*:}" "$root/usr/lib/bugbox/init/dev/${pair%:*}"
done
