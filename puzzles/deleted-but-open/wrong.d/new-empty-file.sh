#!/bin/sh
# refused by: space
# The name is back, but the gauge still writes to the file that lost it.
sudo touch /run/tide/readings.log
