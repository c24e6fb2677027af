#!/bin/sh
# A link belongs to whoever makes it.
sudo rm /srv/recipes/season
sudo -u kitchen ln -s ../kitchen/autumn /srv/recipes/season
