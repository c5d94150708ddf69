"""Readers of files that people hand in, fed with damaged ones: no crash, no hang, no flood of memory."""
