#!/bin/sh
# refused by: counted
# The ovens were never out.
sudo systemctl restart ovens watchman
sleep 3
