"""The console script `whatwhere`: ready for signals from its first moment, it imports the command line and runs it."""

import os
import signal

from whatwhere.indexer.cores import limit_library_threads
from whatwhere.service.signals import end_at_once, ending_at_once


def main() -> None:
    """Run the command line.

    Importing it takes half a second. Until then Ctrl-C and SIGTERM end the process at once, without a traceback. As
    process 1 of a container, SIGTERM keeps this meaning.
    """
    with ending_at_once():
        limit_library_threads()
        from whatwhere.service.cli import main as run  # noqa: PLC0415 - after the signals
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, end_at_once)
    run()
