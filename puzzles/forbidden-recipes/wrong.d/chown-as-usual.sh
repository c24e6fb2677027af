#!/bin/sh
# refused by: shown
# It follows the link, and gives the kitchen what the kitchen had.
sudo chown kitchen:kitchen /srv/recipes/season
