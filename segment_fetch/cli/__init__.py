"""The command: parse the arguments, call the library, print what came of it.

Called by users alone; calls the client and everything below it. `app` turns errors into exit codes.
"""
