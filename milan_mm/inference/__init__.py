# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to a model that can be used: an encoder, a pretraining, a task."""
