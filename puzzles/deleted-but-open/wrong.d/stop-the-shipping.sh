#!/bin/sh
# refused by: ashore
# Without shipping nothing is deleted, and nothing arrives.
sudo systemctl stop tide-ship
sudo systemctl restart tide-gauge
