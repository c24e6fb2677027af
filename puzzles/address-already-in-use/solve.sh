#!/bin/sh
# Stop the forgotten socket, keep it from coming back, start the menu.
sudo systemctl disable --now hallboard.socket
sudo systemctl reset-failed menu
sudo systemctl start menu
