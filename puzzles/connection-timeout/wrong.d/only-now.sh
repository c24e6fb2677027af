#!/bin/sh
# refused by: lasts
# It works, and has been forgotten after the next boot.
sudo nft add element inet lighthouse readers '{ 10.77.2.0/24 }'
