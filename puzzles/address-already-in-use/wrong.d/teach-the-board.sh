#!/bin/sh
# refused by: service
# The old board reads out the new menu. Port, page, everything is right, but for who answers.
sudo tee /usr/lib/hallboard/farewell >/dev/null <<'END'
#!/bin/sh
while read -r line && [ "$line" != "$(printf '\r')" ]; do :; done
printf 'HTTP/1.0 200 OK\r\n\r\n'
cat /srv/menu/today.txt
END
