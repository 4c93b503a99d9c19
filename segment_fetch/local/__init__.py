"""Local files, opened safely.

Called by every package that opens a file by a name from outside; calls no other package.
"""
