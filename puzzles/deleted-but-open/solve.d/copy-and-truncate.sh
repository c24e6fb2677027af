#!/bin/sh
# Leave the gauge its file: send a copy, empty the original.
sudo sed -i 's/^mv .*/cp "$log" "$outgoing" \&\& truncate -s 0 "$log"/' /usr/local/lib/tide/ship
sudo systemctl restart tide-gauge
