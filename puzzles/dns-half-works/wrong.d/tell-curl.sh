#!/bin/sh
# refused by: resolves
# One program is told the answer, the others are not.
echo 'resolve = "buoy7.bay.example:7007:127.77.0.7"' >"$HOME/.curlrc"
