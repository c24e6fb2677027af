#!/bin/sh
# Twenty more visits like the display's, after which as much is open as before.

shop() { /usr/bin/systemctl show --property MainPID --value cloakroom.service; }
# shellcheck disable=SC2012  # names are numbers
open_files() { ls "/proc/$pid/fd" 2>/dev/null | wc -l; }
# The guests of the check before may just be leaving.
settled() { [ "$(open_files)" -lt 40 ]; }
closed() { [ "$(open_files)" -le $((before + 4)) ]; }
told() { grep -q '^guests [0-9]' /run/foyer/display 2>/dev/null; }

pid=$(shop)
[ -n "$pid" ] && [ "$pid" != 0 ] || fail "cloakroom.service does not run."
eventually 8 settled
before=$(open_files)
# shellcheck disable=SC2016  # what is in quotes is Perl
/usr/bin/perl -MIO::Socket::INET -e '
    for (1 .. 20) {
        my $display = IO::Socket::INET->new(
            PeerAddr => "127.0.0.1", PeerPort => 4040, Timeout => 3) or exit 1;
        print $display "status\n";
        $display->flush;
        alarm 3;
        while (1) {
            my $line = <$display> // exit 1;
            last if $line =~ /^guests \d/;
        }
        alarm 0;
    }
' || fail "A display that asks for the status is not told how many guests there are."
eventually 4 closed ||
    fail "Of twenty who asked for the status $(($(open_files) - before)) have left an open file behind."
[ "$(shop)" = "$pid" ] || fail "The cloakroom was started again while we looked on."
eventually 8 told || fail "The display in the foyer is told nothing any more."
