"""``shoal``: runs a command and turns what goes wrong into a sentence and an exit code."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence

from shoal_gateway.cli import codes, loading
from shoal_gateway.cli.context import err
from shoal_gateway.cli.root import app


def run(arguments: Sequence[str]) -> int:
    """Runs a command; the exit code, one of `shoal_gateway.cli.codes`."""
    # As Ctrl-C: what was started is ended, and not left to itself.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # It would tell of each attempt to connect; what comes of them, commands say themselves.
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)
    try:
        words = loading.completed(os.environ)
        loading.load(loading.command_in(arguments if words is None else words))
        app(list(arguments))
    except SystemExit as end:
        # Usage errors (2) and Ctrl-C (130) are said by typer itself.
        return end.code if isinstance(end.code, int) else codes.FAILED
    except KeyboardInterrupt:
        return codes.INTERRUPTED  # before typer began, or after it
    except BrokenPipeError:
        return codes.FINE  # the reader of our output has seen enough
    except Exception as error:
        told = codes.ending(error)
        if told is None:
            raise
        code, sentence = told
        err.print(f"shoal: {sentence}", style="red", soft_wrap=True)
        return code
    return codes.FINE
