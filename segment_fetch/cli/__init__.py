"""The command: parse the arguments, call the library, print the result.

Called only by users; calls the client and everything below it. `app` turns errors into exit codes.
"""
