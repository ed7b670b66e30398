"""Figures of the file-system element: `make bench-filesystem`, one file each.

The library is measured alone, with a run directory made by hand (places.py), against the same calls
on an unpacked tree and against programs that do the same through FUSE.
"""
