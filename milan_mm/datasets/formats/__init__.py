# SPDX-License-Identifier: Apache-2.0
"""Annotations in other formats, written anew in those that mmdet and mmseg read."""
