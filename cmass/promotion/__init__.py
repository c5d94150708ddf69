"""Champion and challenger: which trained model gives the masses.

Step `trial` lets the latest training weigh the survey, `judge` holds what it is worth against
gates and against the champion and moves the registry's alias, `champion` brings the model that
the alias names into the workspace. Nothing after that knows of any other model.
"""
