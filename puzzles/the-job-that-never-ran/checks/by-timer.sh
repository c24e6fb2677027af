#!/bin/sh
# The timer tells when it last started something. That has to change, and what it started to end well.
last() {
    /usr/bin/systemctl show --property LastTriggerUSec --property LastTriggerUSecMonotonic orders-copy.timer
}
moved() { [ "$(last)" != "$before" ]; }
went_well() {
    [ "$(/usr/bin/systemctl show --property Result --value orders-copy.service)" = success ]
}

before=$(last)
eventually 16 moved || fail "Copies are made, but orders-copy.timer has started nothing for sixteen seconds."
eventually 4 went_well || fail "What orders-copy.timer starts fails; the copies come from somewhere else."
