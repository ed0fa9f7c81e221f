"""Uses the processor for a while: a job that more replicas on the same machine don't make faster.

python burn.py --seconds 0.5 --out burn.json
"""

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    """Computes until so much processor time is used, then writes how much was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, required=True, help="processor time to use")
    parser.add_argument("--out", type=Path, required=True, help="file to write, JSON")
    options = parser.parse_args()
    # Processor time, not time: what has to share the processor takes longer.
    while time.process_time() < options.seconds:
        sum(range(10_000))
    options.out.write_text(json.dumps({"seconds": options.seconds}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
