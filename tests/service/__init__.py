"""The running service (`make serve`), tried as a person would: `make serve-test`."""
