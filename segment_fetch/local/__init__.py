"""Files of this machine, opened with care.

Called by every package that opens a file whose name it was given; calls nobody.
"""
