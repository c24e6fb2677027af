#!/bin/sh
# refused by: resolves
# Good for one buoy, until it drifts.
echo '127.77.0.7 buoy7.bay.example' | sudo tee -a /etc/hosts >/dev/null
