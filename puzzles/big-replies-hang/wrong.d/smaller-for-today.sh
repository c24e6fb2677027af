#!/bin/sh
# refused by: lasts
# The right size on the first cable, until the cable is set up anew.
sudo ip link set to-mast mtu 1400
