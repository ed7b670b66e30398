"""Files of other tools, read and written as stacks; pure data in, pure data out.

`compose.py` and `containerlab.py` make a stack of theirs, `export.py` a Compose file of ours.
Called by `app/cli/convert.py`.
"""
