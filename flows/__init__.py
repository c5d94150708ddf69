"""Prefect flows around the steps of cmass. They hold no logic of their own."""
