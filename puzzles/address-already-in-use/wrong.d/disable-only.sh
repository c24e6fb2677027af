#!/bin/sh
# refused by: answers
# Not started at the next boot, but still listening in this one.
sudo systemctl disable hallboard.socket
sudo systemctl reset-failed menu
sudo systemctl start menu
sleep 3
