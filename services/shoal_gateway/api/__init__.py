"""The api: the gateway's face to its users."""
