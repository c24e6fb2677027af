#!/bin/sh
# refused by: guarded
# The owners are equal now; the kitchen may not change its own recipes any more.
sudo chown -R trainee: /srv/kitchen/autumn
