# SPDX-License-Identifier: Apache-2.0
"""Pages, charts and curves: what a run leaves for people to read."""
