#!/bin/sh
# What a visitor sees must be what lies in the file.
file=/srv/choir/public/programme.txt

ask() { printf 'GET /programme.txt HTTP/1.0\r\n\r\n' | nc -w 3 127.0.0.1 8000 2>/dev/null; }
answers() { page=$(ask) && [ -n "$page" ]; }

[ -f "$file" ] && [ ! -L "$file" ] || fail "There is no file $file any more."
eventually 5 answers || fail "Nobody answers on port 8000."
page=$(ask)
case $page in
*' 200 OK'*) ;;
*' 403 '*) fail "The page still answers 403 Forbidden." ;;
*) fail "The page does not show the programme." ;;
esac
case $page in
*"$(cat "$file")"*) ;;
*) fail "What the page shows is not what lies in $file." ;;
esac
grep -q whistling "$file" || fail "The programme itself is gone."
