# SPDX-License-Identifier: Apache-2.0
"""The page of a run, of whatever task: ``report.py`` from what it logged, ``gallery.py`` images."""
