# SPDX-License-Identifier: Apache-2.0
"""Reading a config, and filling in what follows from data, batch and length."""
