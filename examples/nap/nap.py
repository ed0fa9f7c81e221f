"""Waits for a while and says so: the smallest job, for load tests.

python nap.py --seconds 0.5 --out nap.json
"""

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    """Waits, then writes how long it was asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, required=True, help="how long to wait")
    parser.add_argument("--out", type=Path, required=True, help="file to write, JSON")
    options = parser.parse_args()
    time.sleep(options.seconds)
    options.out.write_text(json.dumps({"seconds": options.seconds}) + "\n", encoding="utf-8")
    print(f"slept {options.seconds} s")


if __name__ == "__main__":
    main()
