#!/bin/sh
# What arrives at the far end, by its digest.
wanted=58e76e0e9dc6c414a55232be6f3ef249cd09c5657f0eb1f9c4814e11982f57f1

get() { /usr/sbin/ip netns exec hut /usr/bin/curl -s -m 8 http://10.88.1.1:8080/chart 2>/dev/null; }

[ -e /run/netns/hut ] || fail "The hut is gone: there is no network namespace of that name."
case $(get | sha256sum) in
"$wanted "*) exit 0 ;;
e3b0c44298fc1c14*) fail "Not a byte of the chart arrives in the hut." ;;
*) fail "What arrives in the hut is not the whole chart." ;;
esac
