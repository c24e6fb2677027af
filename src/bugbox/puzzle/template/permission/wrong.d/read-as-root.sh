#!/bin/sh
# refused by: readable
# Root may enter any folder, so nothing is learned and nothing is changed.
sudo cp /srv/report/week.txt "$HOME/"
