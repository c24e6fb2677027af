#!/bin/sh
# What the board does.
/usr/bin/curl -sS --max-time 5 http://buoy7.bay.example:7007/ 2>/dev/null | grep -q '^buoy 7: tide' ||
    fail "http://buoy7.bay.example:7007/ does not tell the tide."
