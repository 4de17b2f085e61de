"""Speed of every op over the history of the project, run by asv."""
