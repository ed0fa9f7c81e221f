"""Load on a fleet: who is called how often, and when. Locust itself only in `locusts`."""
