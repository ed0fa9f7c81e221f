"""The real messages of xDS, which lie apart from other packages: scripts/xds.sh says why."""

import sys
from pathlib import Path

XDS = str(Path(sys.prefix, "xds"))
sys.path.append(XDS)

from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport  # noqa: E402 - found from here on

__all__ = ["XDS", "OrcaLoadReport"]
