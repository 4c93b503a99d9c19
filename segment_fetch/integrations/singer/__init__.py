"""`tap-liveperson-segments`: the segments as a Singer tap, https://hub.meltano.com/singer/spec."""
