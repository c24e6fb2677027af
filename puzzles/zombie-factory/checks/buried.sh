#!/bin/sh
# Look every second for ten: who is in the shop, who of them is dead, and is it the same shop?

shop() { /usr/bin/systemctl show --property MainPID --value print-shop.service; }

dead() {
    for stat in /proc/[0-9]*/stat; do
        # pid (name) state parent: the name may hold anything, so cut up to the last parenthesis.
        sed 's/^.*) //' "$stat" 2>/dev/null
    done | awk -v shop="$1" '$1 == "Z" && $2 == shop { n++ } END { print n + 0 }'
}

first=$(shop)
[ -n "$first" ] && [ "$first" != 0 ] || fail "print-shop.service does not run."
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ "$(shop)" = "$first" ] || fail "The shop was started again while we looked on."
    number=$(dead "$first")
    [ "$number" -lt 6 ] || fail "$number workers have died in the shop and nobody has taken them away."
    sleep 1
done
exit 0
