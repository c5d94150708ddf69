"""Data contracts: what tables must be like where one step hands them to the next.

`suites` makes Great Expectations suites from the column dictionary, `handovers` says which tables
each step hands over and how their rows add up, `quarantine` sets single bad rows of foreign files
aside, `units` finds a lost factor of h, and `drift` compares a release with the one before.
"""
