#!/bin/sh
# refused by: desk
# Nobody steps up, nobody leaves anything behind.
sudo systemctl stop ferry-desk
sudo find /var/spool/ferry/sessions -type f -delete
