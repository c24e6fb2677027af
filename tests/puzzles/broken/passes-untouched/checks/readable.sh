#!/bin/sh
[ -d /srv/report ] || fail "There is no /srv/report any more."
