#!/bin/sh
# refused by: letters
# Room there is, now that the letters are gone as well.
sudo find /srv/inbox -mindepth 1 -delete
