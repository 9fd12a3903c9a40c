"""Rows in, arrays out: what lies between the public faces and the kernels.

Imports go downwards only: typing, check, bands, boundary; result, threads, statuses and units; then themes.
"""
