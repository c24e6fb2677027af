#!/bin/sh
# The other way round: teach the desk the names that the cleaner knows.
sudo sed -i 's/sess-/sess_/' /usr/local/lib/ferry/ferry-desk
sudo systemctl restart ferry-desk
sudo find /var/spool/ferry/sessions -type f -name 'sess-*' -delete
sleep 2
