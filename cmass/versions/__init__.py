"""Released versions: kept with all that they were made of, and made again.

`archive` copies a release with its inputs into a store that DVC keeps and pushes to its remote,
and tags the commit that made it; `rebuild` makes the release again from that tag. DVC and git are
run as programs: this package imports neither.
"""
