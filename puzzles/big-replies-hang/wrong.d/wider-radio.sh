#!/bin/sh
# refused by: lasts
# On paper the radio link now carries more. In the mountains it does not.
sudo ip -n mast link set radio mtu 1500
sudo ip -n relay link set radio mtu 1500
