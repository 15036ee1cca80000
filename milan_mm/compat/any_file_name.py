# SPDX-License-Identifier: Apache-2.0
"""File names may hold bytes that are no UTF-8; streams, and mmengine's log files, refuse them."""
import io
import logging
import sys


def write_any_name(logger: logging.Logger | None = None) -> None:
    """Has the standard output, and the files of a logger, write such bytes as escapes."""
    handlers = logger.handlers if logger else []
    for stream in (sys.stdout, *(getattr(handler, 'stream', None) for handler in handlers)):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors='backslashreplace')
