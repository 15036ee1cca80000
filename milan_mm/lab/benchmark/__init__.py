# SPDX-License-Identifier: Apache-2.0
"""Time and memory, measured on this machine."""
