#!/bin/sh
# Let the shipping tell the gauge to open its log again, and do so once for the file of now.
sudo sed -i '/^mv /a systemctl reload tide-gauge' /usr/local/lib/tide/ship
sudo systemctl reload tide-gauge
