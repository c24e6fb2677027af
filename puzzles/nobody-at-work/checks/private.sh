#!/bin/sh
# Runs as the learner: process 1 is always somebody else's.
[ "$(id -u)" != 0 ] || fail "This check needs an ordinary account."
[ ! -e /proc/1/cmdline ] || fail "Everybody can look into other people's processes again."
