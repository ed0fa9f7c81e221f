"""A load shape for Locust: the same number of users for long. Named beside a file with users.

locust -f locustfiles/jobs.py,locustfiles/soak.py --headless --soak-users 10 --hold 3600 --host …
"""

from typing import Any

from shoal_gateway.load import locusts, shapes


def _options(parser: Any) -> None:
    parser.add_argument("--soak-users", type=int, default=10, help="users (default: 10)")
    parser.add_argument("--ramp", type=float, default=30.0, help="seconds to get there")
    parser.add_argument("--hold", type=float, default=1800.0, help="seconds of it (default: 1800)")


locusts.options(_options)


class Soak(locusts.ShapedLoad):
    """10 users for half an hour."""

    def shape(self) -> shapes.Shape:
        """By the options."""
        return shapes.Soak(self.option("soak_users"), self.option("ramp"), self.option("hold"))
