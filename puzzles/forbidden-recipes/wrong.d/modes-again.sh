#!/bin/sh
# refused by: shown
# The kernel was never against it.
sudo chmod -R a+rX /srv/recipes /srv/kitchen
sudo systemctl restart larder
sleep 1
