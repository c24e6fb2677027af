#!/bin/sh
# refused by: tidy
# Ten times the bytes bring ten times the inodes along, and a disk that is full a little later.
sudo systemctl stop ferry-desk ferry-tidy
sudo umount /var/spool/ferry
sudo truncate -s 256M /var/lib/ferry/spool.img
sudo e2fsck -fp /var/lib/ferry/spool.img
sudo resize2fs /var/lib/ferry/spool.img
sudo systemctl start ferry-desk ferry-tidy
sleep 3
