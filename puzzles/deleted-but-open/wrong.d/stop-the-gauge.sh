#!/bin/sh
# refused by: gauge
# Nobody holds the file now, and nobody measures the tide.
sudo systemctl stop tide-gauge
