"""One module a command, named as the command is: `run(args, console)` returns the exit code.

Called by `cli.app`; calls the client, and never decides what the library should.
"""
