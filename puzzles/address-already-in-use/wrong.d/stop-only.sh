#!/bin/sh
# refused by: survives
# Works until somebody switches the computer on again.
sudo systemctl stop hallboard.socket
sudo systemctl reset-failed menu
sudo systemctl start menu
