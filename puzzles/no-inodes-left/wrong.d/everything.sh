#!/bin/sh
# refused by: tickets
# There is room, and the season tickets are gone.
sudo find /var/spool/ferry -type f -delete
