# SPDX-License-Identifier: Apache-2.0
"""Where ``milan`` and the files of ``tools/`` start.

It lies beside the package because whatever lies in it begins with ``import milan_mm``, which
registers all components and takes seconds. An import while ``starting`` is set leaves that to the
command that is run (see ``milan_mm/__init__.py``), so that help and mistakes are told at once.
"""
from collections.abc import Sequence

starting = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; gives its exit code.

    Args:
        arguments: the command and its options; None for those of this process.
    """
    global starting
    starting = True
    try:
        from milan_mm.cli.main import main
    finally:
        starting = False
    return main(arguments)
