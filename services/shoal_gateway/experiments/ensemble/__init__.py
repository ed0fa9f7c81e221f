"""ZooKeeper's own paper again: throughput by servers and reads, creates, barriers, failures.

Source: Hunt, Konar, Junqueira, Reed, "ZooKeeper: Wait-free coordination for Internet-scale
systems", USENIX ATC 2010, section 5.
"""
