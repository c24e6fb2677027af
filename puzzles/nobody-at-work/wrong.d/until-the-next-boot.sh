#!/bin/sh
# refused by: lasts
# The right option on the mount of today.
sudo mount -o "remount,hidepid=invisible,gid=$(getent group watchman | cut -d: -f3)" /proc
sleep 3
