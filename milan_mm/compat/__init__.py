# SPDX-License-Identifier: Apache-2.0
"""Facts about dependencies, one file each; when the fact goes, so does the file."""
