"""Programs that people use today for the same job, one a module, each run as `python -m benchmarks.peers.NAME JOB`."""
