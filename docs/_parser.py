"""The parser as the reference shows it: without the end of its help, which is laid out for a terminal."""

from segment_fetch.cli.parser import Parser, build


def whole() -> Parser:
    """Return the program's parser."""
    program, parsers = build()
    for parser in (program, *parsers.values()):
        parser.epilog = None
    return program
