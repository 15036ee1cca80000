# SPDX-License-Identifier: Apache-2.0
"""What a trained encoder is like inside: measures by layer, and zero-shot classification."""
