# SPDX-License-Identifier: Apache-2.0
"""Around the training: launching, checkpoints, hooks."""
