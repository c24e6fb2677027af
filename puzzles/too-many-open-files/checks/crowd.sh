#!/bin/sh
# A hundred guests who all stay, and count who got a number.

listens() { /usr/bin/nc -z -w 2 127.0.0.1 4040; }

# It may just have been started.
eventually 10 listens || fail "Nobody listens on port 4040."
# shellcheck disable=SC2016  # what is in quotes is Perl
served=$(/usr/bin/perl -MIO::Socket::INET -e '
    my (@guests, $served);
    for (1 .. 100) {
        push @guests, IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => 4040, Timeout => 3) || last;
    }
    for my $guest (@guests) {
        my $in = "";
        vec($in, fileno $guest, 1) = 1;
        last if !select $in, undef, undef, 5;
        sysread $guest, my $said, 64;
        $served++ if ($said // "") =~ /^number \d+\n/;
    }
    print $served // 0;
') || fail "Guests cannot be tried: Perl no longer runs here."
[ "$served" != 0 ] || fail "Not one of a hundred guests got a number on port 4040."
[ "$served" = 100 ] || fail "Of a hundred guests at once only $served got a number."
