#!/bin/sh
# Every fifth second by the clock, and the command in a file that systemd does not read.
sudo tee /usr/local/bin/orders-copy >/dev/null <<'END'
#!/bin/sh
cp /srv/bakery/orders.txt "/srv/bakery/copies/orders-$(date +%Y-%m-%d).txt"
END
sudo chmod 755 /usr/local/bin/orders-copy
sudo sed -i 's|^ExecStart=.*|ExecStart=/usr/local/bin/orders-copy|' /etc/systemd/system/orders-copy.service
sudo mkdir -p /etc/systemd/system/orders-copy.timer.d
printf '[Timer]\nOnUnitActiveSec=\nOnCalendar=*:*:0/5\n' |
    sudo tee /etc/systemd/system/orders-copy.timer.d/clock.conf >/dev/null
sudo systemctl daemon-reload
sudo systemctl restart orders-copy.timer
