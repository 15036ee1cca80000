# SPDX-License-Identifier: Apache-2.0
"""Experiments made of many runs: the quickstart, ablation studies, benchmarks."""
