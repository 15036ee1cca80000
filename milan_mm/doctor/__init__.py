# SPDX-License-Identifier: Apache-2.0
"""Whether training can start here, and what to do where it cannot."""
