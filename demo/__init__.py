"""`hookmirror demo`: the whole system on one machine, with a stand-in for the cloud."""
