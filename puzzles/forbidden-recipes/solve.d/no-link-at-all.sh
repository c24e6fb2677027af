#!/bin/sh
# A bind mount shows the kitchen's folder where the page looks for it, and is no link.
sudo rm /srv/recipes/season
sudo mkdir /srv/recipes/season
echo '/srv/kitchen/autumn /srv/recipes/season none bind 0 0' | sudo tee -a /etc/fstab >/dev/null
sudo mount /srv/recipes/season
