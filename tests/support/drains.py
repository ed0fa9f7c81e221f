"""How long a service may take from SIGTERM to its end."""

import inspect

import shoal

# ZooKeeper, when it is away, is waited for twice: to say DRAINING, and to leave (seconds each).
AWAY = 5.0
# What an app manager gives functions to come back.
FUNCTIONS = 5.0


def longest():
    """Seconds, with the servers' defaults, which the gateway's services have."""
    options = inspect.signature(shoal.Server).parameters
    return options["linger"].default + options["grace"].default + 2 * AWAY + FUNCTIONS
