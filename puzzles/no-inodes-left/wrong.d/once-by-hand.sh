#!/bin/sh
# refused by: tidy
# There is room, for a minute and a half.
sudo find /var/spool/ferry/sessions -type f -delete
