"""A small DNS server over a directory, for programs that know DNS and not Shoal.

Needs dnslib: ``pip install 'shoal[dns]'``. `shoal.dns.answers` decides, and knows no sockets and no
wire format; `shoal.dns.wire` turns packets into questions and answers into packets.
"""
