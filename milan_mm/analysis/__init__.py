# SPDX-License-Identifier: Apache-2.0
"""Looking at trained models: what they do with images, what is inside, where they fail."""
