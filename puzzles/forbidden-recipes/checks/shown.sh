#!/bin/sh
# What a visitor sees must be what lies in the kitchen's folder.

ask() { printf 'GET %s HTTP/1.0\r\n\r\n' "$1" | nc -w 3 127.0.0.1 8080 2>/dev/null; }
answers() { ask / | grep -q '^HTTP'; }

for name in quinces pumpkin; do
    file=/srv/kitchen/autumn/$name.txt
    [ -s "$file" ] || fail "The kitchen has lost its recipe $name.txt."
done
eventually 20 answers || fail "Nobody answers on port 8080."
for name in quinces pumpkin; do
    page=$(ask "/season/$name.txt")
    case $page in
    *"$(cat "/srv/kitchen/autumn/$name.txt")"*) ;;
    *' 403 '*) fail "/season/$name.txt is still forbidden." ;;
    *' 404 '*) fail "/season/$name.txt is not found any more." ;;
    *) fail "/season/$name.txt does not show the kitchen's recipe." ;;
    esac
done
case $(ask /basics/stock.txt) in
*' 200 '*) ;;
*) fail "/basics/stock.txt was shown before, and now it is not." ;;
esac
