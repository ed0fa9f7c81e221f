"""Draws docs/aws-terraform.png, what terraform/environments/example makes.

.venv/bin/python scripts/aws_picture.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

TARGET = Path(__file__).parents[1] / "docs" / "aws-terraform.png"
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
# One colour a kind of thing.
VPC, ZONE, SUBNET = "#f4f6f8", "#e6ecf2", "#ffffff"
GATEWAY, WORKERS, ZOOKEEPER, STORE, EDGE = "#cfe3f7", "#d8efd9", "#fbe3c4", "#ead8f0", "#eeeeee"


class Drawing:
    """Boxes and arrows on a page of 100 by 78 units."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(12.5, 9.6), dpi=110)
        FigureCanvasAgg(self.figure)
        self._axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_xlim(0, 100)
        self._axes.set_ylim(0, 78)
        self._axes.axis("off")

    def box(
        self,
        place: tuple[float, float, float, float],
        fill: str,
        title: str,
        text: str = "",
        *,
        dashed: bool = False,
    ) -> None:
        """A box at (left, bottom, width, height), with a bold title and smaller text below it."""
        left, bottom, width, height = place
        self._axes.add_patch(
            FancyBboxPatch(
                (left, bottom),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.8",
                facecolor=fill,
                edgecolor="#5b6770",
                linewidth=1.0,
                linestyle="--" if dashed else "-",
            )
        )
        top = bottom + height - 0.7
        self._axes.text(left + 0.9, top, title, fontsize=9.5, weight="bold", va="top")
        if text:
            self._axes.text(left + 0.9, top - 2.1, text, fontsize=8, va="top", linespacing=1.35)

    def arrow(self, *points: tuple[float, float]) -> None:
        """An arrow along points, from whoever opens the connection."""
        if len(points) > 2:
            across, up = zip(*points[:-1], strict=True)
            self._axes.plot(across, up, color="#33414d", linewidth=1.2, solid_joinstyle="round")
        self._axes.add_patch(
            FancyArrowPatch(
                points[-2],
                points[-1],
                arrowstyle="-|>",
                mutation_scale=12,
                color="#33414d",
                linewidth=1.2,
                shrinkA=0,
                shrinkB=0,
            )
        )

    def label(self, place: tuple[float, float], text: str, align: str = "left") -> None:
        """Small words beside an arrow."""
        self._axes.text(
            *place,
            text,
            fontsize=7.8,
            va="center",
            ha=align,
            color="#33414d",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
        )


def draw() -> Figure:
    """The picture."""
    page = Drawing()
    page.box((1, 1, 75, 73.5), VPC, "VPC 10.60.0.0/16: the network module")
    for number, zone in enumerate(ZONES):
        left = 2.5 + number * 24.6
        page.box((left, 8.5, 23, 61.8), ZONE, zone)
        nat = "NAT gateway (packages)" if number == 0 else '(NAT: nat = "per_zone")'
        page.box((left + 1, 61.5, 21, 5.6), SUBNET, "public subnet", nat)
        page.box((left + 1, 9.5, 21, 51), SUBNET, "private subnet")
        page.box(
            (left + 4.6, 46.3, 16.6, 10.8),
            GATEWAY,
            "gateway host",
            "registry 7401, api 7402\nscheduler 7403\nshoal-lifecycle (drains)",
        )
        page.box(
            (left + 4.6, 33.3, 16.6, 9),
            WORKERS,
            "worker host",
            "appmanager@local 7404\njobs under supervisors\nshoal-lifecycle",
        )
        page.box(
            (left + 4.6, 19, 16.6, 10.6),
            ZOOKEEPER,
            f"ZooKeeper {number + 1}",
            f"zk-{number + 1}.example.internal\nown network interface\nown data volume",
        )
        if number < 2:
            role = "primary" if number == 0 else "standby, takes over"
            page.box((left + 4.6, 10.3, 16.6, 5.4), STORE, "PostgreSQL (RDS)", role)
        # Workers to the registry, all to ZooKeeper.
        page.arrow((left + 13, 42.3), (left + 13, 46.3))
        page.arrow((left + 13, 33.3), (left + 13, 29.6))
        page.arrow((left + 4.6, 50), (left + 3, 50), (left + 3, 25), (left + 4.6, 25))
        page.label((left + 13.8, 44.4), "gRPC")
        page.label((left + 13.8, 31.4), "2181")
    # One registry's way to the store stands for all.
    page.arrow((7.1, 52), (4.4, 52), (4.4, 13), (7.1, 13))
    page.label((8.2, 17.3), "5432, from gateway hosts only")
    for left in (23.7, 48.3):
        page.arrow((left, 24), (left + 8, 24))
        page.label((left + 4.2, 26.4), "2888\n3888", "center")
    page.arrow((23.7, 13), (31.7, 13))
    page.label((27.9, 14.6), "copies", "center")
    page.box(
        (2.5, 2, 72.2, 5.2),
        EDGE,
        "endpoints",
        "S3 (gateway); ssm, ssmmessages, ec2messages (interfaces, 443 from inside the VPC)",
    )

    page.box(
        (78.5, 60.5, 20.5, 14),
        EDGE,
        "who comes in",
        "nobody from the internet;\nno port 22, no key pairs.\nOperators: Session Manager.\n"
        "Callers: instances with the\nclient groups; api_cidrs\nreach 7402.",
    )
    page.box(
        (78.5, 43.5, 20.5, 15),
        GATEWAY,
        "autoscaling: services",
        "gateway and workers, over\nthree zones. A new host\nserves before an old one\n"
        "drains and goes; when new\nones fail, the old launch\ntemplate is back.",
    )
    page.box(
        (78.5, 27.5, 20.5, 14),
        ZOOKEEPER,
        "autoscaling: ZooKeeper",
        "one group of one a node.\nA new instance attaches the\nnode's interface and volume:\n"
        "same address, name and\ndata. Others don't notice.",
    )
    page.box(
        (78.5, 15, 20.5, 10.5),
        STORE,
        "S3 bucket",
        "objects/, applications/\nversioned, encrypted,\nTLS only, not public",
    )
    page.box(
        (78.5, 2, 20.5, 11),
        STORE,
        "Secrets Manager",
        "PostgreSQL's password, new\nevery week; hosts read it\nonce a minute",
    )
    page.arrow((76, 20), (78.5, 20))
    page.arrow((76, 7.5), (78.5, 7.5))
    page.label(
        (1.2, 76.2), "terraform/environments/example: arrows point from who opens a connection"
    )
    return page.figure


if __name__ == "__main__":
    draw().savefig(TARGET)
