"""The names of the gateway's services and of what a local fleet has of them."""

SERVICES = ("registry", "api", "scheduler", "appmanager")
FLAVORS = ("local", "local-legacy")
