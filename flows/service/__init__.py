"""The servers behind the flows, as plain processes on this machine: `make serve`."""
