#!/bin/sh
# refused by: editable
# The same hammer bounces off a file that must not change.
sudo chmod -R g+rwx /srv/choir
