"""Rows in, arrays out: what lies between the public faces and the kernels.

Imports go downwards only: typing, labels, check, bands, boundary; then result, threads, statuses and units;
then themes.
"""
