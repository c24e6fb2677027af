#!/bin/sh
# refused by: private
# The report is right, and so is everybody's curiosity.
sudo sed -i 's/,hidepid=invisible//' /etc/fstab
sudo mount -o remount,hidepid=0 /proc
sleep 3
