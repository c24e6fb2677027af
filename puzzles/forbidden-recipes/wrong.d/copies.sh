#!/bin/sh
# refused by: current
# Right today, and old as soon as the kitchen changes a line.
sudo rm /srv/recipes/season
sudo cp -r /srv/kitchen/autumn /srv/recipes/season
