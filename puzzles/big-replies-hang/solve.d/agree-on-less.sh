#!/bin/sh
# Have both sides agree on smaller segments when a connection is made.
sudo tee -a /etc/nftables.conf >/dev/null <<'END'
table inet smaller {
	chain before {
		type filter hook prerouting priority mangle; policy accept;
		tcp dport 8080 tcp flags syn tcp option maxseg size set 1360
	}
}
END
sudo systemctl reload nftables
