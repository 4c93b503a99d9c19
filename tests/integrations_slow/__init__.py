"""Slow tests against whole programs, each in an environment of its own: `make test-integrations`."""
