# SPDX-License-Identifier: Apache-2.0
"""A data set looked through before it is trained on: images, annotations, label maps, folders."""
