#!/bin/sh
# refused by: ashore
# Frees the space. The next shipment takes the file away from under the gauge again.
sudo systemctl restart tide-gauge
sleep 6
