"""``python -m shoal_gateway.cli``: the same as ``shoal``."""

from shoal_gateway.cli import main

main()
