"""A load shape for Locust: few users, suddenly many, few again. Named beside a file with users.

locust -f locustfiles/jobs.py,locustfiles/spike.py --headless --base 5 --peak 50 --host …
"""

from typing import Any

from shoal_gateway.load import locusts, shapes


def _options(parser: Any) -> None:
    parser.add_argument("--base", type=int, default=5, help="users before and after (default: 5)")
    parser.add_argument("--peak", type=int, default=50, help="users in between (default: 50)")
    parser.add_argument("--hold", type=float, default=20.0, help="seconds of each (default: 20)")


locusts.options(_options)


class Spike(locusts.ShapedLoad):
    """5, then 50, then 5 users."""

    def shape(self) -> shapes.Shape:
        """By the options."""
        return shapes.Spike(self.option("base"), self.option("peak"), self.option("hold"))
