# SPDX-License-Identifier: Apache-2.0
"""From arrays to RGB images, with Pillow; nothing here knows a model."""
