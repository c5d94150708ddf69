"""Faults that befall a running pipeline: kills, full disks, bad files, clocks, servers, networks."""
