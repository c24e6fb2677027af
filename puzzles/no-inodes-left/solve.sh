#!/bin/sh
# The cleaner looks for names that the desk does not give.
sudo sed -i "s/sess_/sess-/" /usr/local/lib/ferry/ferry-tidy
sudo /usr/local/lib/ferry/ferry-tidy
sleep 12
