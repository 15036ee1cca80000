# SPDX-License-Identifier: Apache-2.0
"""The command line: a file a command, with its options and what it runs.

A command's file imports nothing heavy at its top, so that help comes at once; what it runs, it
imports in ``run``. Options that several commands have are in ``options.py``, what becomes of errors
is in ``failures.py``, how commands were spelt before is in ``old_spellings.py``.
"""
