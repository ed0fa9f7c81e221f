"""A load shape for Locust: as many users more with each step. Named beside a file with users.

locust -f locustfiles/jobs.py,locustfiles/steps.py --headless --step-users 5 --steps 4 --host …
"""

from typing import Any

from shoal_gateway.load import locusts, shapes


def _options(parser: Any) -> None:
    parser.add_argument("--step-users", type=int, default=5, help="users a step adds (default: 5)")
    parser.add_argument("--steps", type=int, default=4, help="how many steps (default: 4)")
    parser.add_argument("--hold", type=float, default=15.0, help="seconds of each (default: 15)")


locusts.options(_options)


class Steps(locusts.ShapedLoad):
    """5, 10, 15 … users."""

    def shape(self) -> shapes.Shape:
        """By the options."""
        return shapes.Steps(self.option("step_users"), self.option("steps"), self.option("hold"))
