# SPDX-License-Identifier: Apache-2.0
"""Classification by text alone, through the decoder and the text tower of the teacher."""
