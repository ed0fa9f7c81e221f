"""The scheduler: leases queued jobs and offers them to app managers of their flavor."""
