"""What the real programs make of a command line and an environment, without serving anything."""

import json
import os
import subprocess
import sys

# The program's own reading, which stops where it would begin to serve.
READ = """
import json, runpy, sys
from shoal_gateway import runtime

def stop(parsed):
    print(json.dumps({name: str(value) for name, value in vars(parsed).items()}))
    sys.exit(0)

runtime.common_options = stop
module = sys.argv.pop(1)
runpy.run_module(module, run_name="__main__")
"""


def read(service, arguments=(), environment=None):
    """The options that a service reads, as strings.

    Raises:
        ValueError: it refuses them; says what it says.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    done = subprocess.run(
        [sys.executable, "-c", READ, f"shoal_gateway.{service}", *arguments],
        env={**ours, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0:
        raise ValueError(done.stderr.strip())
    return json.loads(done.stdout)
