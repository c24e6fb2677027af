#!/bin/sh
# refused by: space
# Room for a while.
sudo mount -o remount,size=48m /run/tide
sleep 4
